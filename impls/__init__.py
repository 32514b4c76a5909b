"""The same dropout and the same network, once per framework."""

import os
import sys

import shared  # noqa: F401  # first of all: Ctrl-C while the rest is imported ends the process

# The folders in here have the names of the frameworks. If Python is started from inside this
# folder, it looks here first, and `import torch` finds ours. So it is removed from sys.path.
_here = os.path.dirname(os.path.realpath(__file__))
sys.path[:] = [
    entry
    for entry in sys.path
    if not (os.path.exists(entry or ".") and os.path.samefile(entry or ".", _here))
]
