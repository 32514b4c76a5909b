"""What belongs to no framework: settings, data, initial weights, batch order, files, commands.

Nothing here imports PyTorch or JAX.
"""
