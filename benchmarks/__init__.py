"""How fast the implementations are: python -m benchmarks."""
