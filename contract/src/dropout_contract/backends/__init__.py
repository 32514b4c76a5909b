"""What the contract needs of a framework. Each framework is imported only when it is asked for."""

import functools
import importlib
import importlib.util

from dropout_contract.backends.base import Backend

FRAMEWORKS = ("torch", "jax", "numpy")


def installed(framework: str) -> bool:
    """Return whether a framework can be imported, without importing it."""
    return importlib.util.find_spec(framework) is not None


@functools.cache
def backend(name: str) -> Backend:
    """Return the one backend of that name, importing its framework."""
    return importlib.import_module(f"dropout_contract.backends.on_{name}").Framework()
