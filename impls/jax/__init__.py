"""The JAX and Flax implementation."""

if __name__ != "impls.jax":
    raise ImportError(
        f"this is impls.jax, imported as {__name__!r} in place of the framework: "
        "take the folder impls/ off sys.path, or start from the folder above it"
    )
