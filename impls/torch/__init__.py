"""The PyTorch implementation."""

import os

if __name__ != "impls.torch":
    raise ImportError(
        f"this is impls.torch, imported as {__name__!r} in place of the framework: "
        "take the folder impls/ off sys.path, or start from the folder above it"
    )

# PyTorch's threads wait for one another by spinning. If other programs use the processor, training
# then takes many times longer. A shorter spin about halves that time, and costs almost nothing on a
# quiet machine (docs/speed.md). It has an effect only if impls.torch is imported before torch.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
