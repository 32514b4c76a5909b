"""Try odd inputs, all kinds or those named: python -m tests.reliability.inputs flags places."""

import json
import sys
import tempfile
from pathlib import Path

from tests.reliability.inputs import KINDS, measure

with tempfile.TemporaryDirectory() as name:
    print(json.dumps(measure(Path(name), tuple(sys.argv[1:]) or KINDS), indent=1))
