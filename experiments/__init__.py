"""Programs that compare the implementations."""

import shared  # noqa: F401  # first of all: Ctrl-C while the rest is imported ends the process
