"""What a run survives: signals at any moment, system calls that fail, and a loss of power."""
