"""The same dropout and the same network, once per framework."""

import sys
from pathlib import Path

# The folders in here are named after the frameworks. Started from inside this folder, Python
# would look here first and `import torch` would find ours: take this folder off the list.
_here = Path(__file__).resolve().parent
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _here]
