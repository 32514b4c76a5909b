"""One interface to the three frameworks, so that each test is written once."""

import dataclasses
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import torch
from dropout_contract.backends import backend

import impls.jax.dropout
import impls.jax.evaluate
import impls.jax.mlp
import impls.jax.runtime
import impls.jax.train
import impls.numpy.dropout
import impls.numpy.evaluate
import impls.numpy.mlp
import impls.torch.dropout
import impls.torch.evaluate
import impls.torch.mlp
import impls.torch.runtime
import impls.torch.train

# float32 + float64 is an error instead of a silent change of precision.
jax.config.update("jax_numpy_dtype_promotion", "strict")


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A framework: its modules, and how to make and read its arrays."""

    name: str
    dropout: ModuleType
    mlp: ModuleType
    evaluate: ModuleType
    train: ModuleType | None
    runtime: ModuleType | None

    def array(self, values: Any, dtype: str | None = None) -> Any:
        """Make an array of the framework. Without a dtype, that of the NumPy values is kept."""
        values = np.asarray(values)
        if self.name == "torch":
            tensor = torch.tensor(values.tolist() if values.dtype == ml_dtypes.bfloat16 else values)
            return tensor.to(getattr(torch, dtype)) if dtype else tensor
        values = values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype or values.dtype)
        return jnp.asarray(values) if self.name == "jax" else values

    def numpy(self, array: Any) -> np.ndarray:
        """Read an array of the framework; bfloat16 becomes float32, which holds it exactly."""
        if self.name == "torch":
            array = array.detach()
            return (array.float() if array.dtype == torch.bfloat16 else array).numpy()
        array = np.asarray(array)
        return array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array

    def source(self, seed: int) -> dict[str, Any]:
        """Return a source of randomness, as the keyword argument that the framework calls it."""
        source = jax.random.key(seed) if self.name == "jax" else backend(self.name).source(seed)
        return {backend(self.name).source_name: source}

    def keep(self, shape: tuple[int, ...], p: float, seed: int) -> Any:
        """Draw a mask."""
        return self.dropout.sample_keep(shape, p, **self.source(seed))

    def gradient(self, function: Any, x: Any) -> np.ndarray:
        """Return the gradient of the sum of function(x)."""
        return backend(self.name).gradient(function, x, 1)


TORCH = Adapter(
    "torch",
    impls.torch.dropout,
    impls.torch.mlp,
    impls.torch.evaluate,
    impls.torch.train,
    impls.torch.runtime,
)
JAX = Adapter(
    "jax",
    impls.jax.dropout,
    impls.jax.mlp,
    impls.jax.evaluate,
    impls.jax.train,
    impls.jax.runtime,
)
NUMPY = Adapter("numpy", impls.numpy.dropout, impls.numpy.mlp, impls.numpy.evaluate, None, None)
ALL = (TORCH, JAX, NUMPY)
WITH_GRADIENT = (TORCH, JAX)
