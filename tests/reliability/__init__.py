"""What runs and files survive, tried: `python -m tests.reliability` writes docs/reliability.md."""
