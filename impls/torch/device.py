"""Where and how precisely to compute, in PyTorch."""

import torch

from shared.checks import InputError
from shared.config import Dtype, Precision


def use(device: str = "auto", dtype: Dtype = "float32", precision: Precision = "highest"):
    """Compute like this from now on.

    Args:
        device: auto (a GPU if there is one), cpu, cuda, or another name that PyTorch knows.
        dtype: of the weights.
        precision: of float32 matrix products.

    Returns:
        The device, a `torch.device`.

    Raises:
        InputError: there is no such device.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    # DIFF precision: PyTorch has one setting for the whole process.
    torch.set_float32_matmul_precision(precision)
    try:  # DIFF device: given to each tensor and module
        return torch.zeros(1, device=device).device
    except Exception as error:  # each kind of device fails in its own way
        raise InputError(f"no device {device!r}: {str(error).splitlines()[0]}") from None
