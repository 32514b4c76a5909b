"""The PyTorch implementation."""

import os

if __name__ != "impls.torch":
    raise ImportError(
        f"this is impls.torch, imported as {__name__!r} in place of the framework: "
        "take the folder impls/ off sys.path, or start from the folder above it"
    )

# PyTorch's threads wait for one another by spinning. When other programs use the processor too, a
# step then takes many times longer. With a short spin it takes half of that, and on a quiet machine
# almost nothing is lost. OpenMP reads this when torch is imported. docs/speed.md has the figures.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
