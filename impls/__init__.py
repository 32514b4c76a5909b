"""The same dropout and the same network, once per framework."""

import sys
from pathlib import Path

# The folders in here have the names of the frameworks. If Python is started from inside this
# folder, it looks here first, and `import torch` finds ours. So it is removed from sys.path.
_here = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _here]
