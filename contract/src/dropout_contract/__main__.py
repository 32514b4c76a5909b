"""python -m dropout_contract: the same as the command dropout-contract."""

import sys

from dropout_contract.cli import main

sys.exit(main())
