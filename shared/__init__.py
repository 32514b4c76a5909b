"""What the implementations share. Nothing in here imports a framework.

Initial weights, batch order, data and files are the same for all of them.
"""

import signal
import sys

# Python looks for the module of `python -m MODULE`, and has not run it yet. Until it takes over,
# Ctrl-C ends the process at once. Else it would end in the traceback of some import, or be lost.
if sys.argv[:1] == ["-m"]:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
