"""What is neutral: configuration, data, initial weights, batch order, weight files, run logs.

Nothing here imports PyTorch or JAX, so that neither framework can lean on the other.
"""
