"""The PyTorch implementation."""

if __name__ != "impls.torch":
    raise ImportError(
        f"this is impls.torch, imported as {__name__!r} in place of the framework: "
        "take the folder impls/ off sys.path, or start from the folder above it"
    )
