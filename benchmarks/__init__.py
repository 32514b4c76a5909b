"""How fast the implementations are: python -m benchmarks."""

import shared  # noqa: F401  # first of all: Ctrl-C while the rest is imported ends the process
