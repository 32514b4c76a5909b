"""One interface to the three frameworks, so that each test is written once."""

import dataclasses
import functools
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import torch
from dropout_contract.backends import backend
from flax import nnx

import impls.jax.device
import impls.jax.dropout
import impls.jax.evaluate
import impls.jax.mlp
import impls.jax.noise
import impls.jax.train
import impls.numpy.dropout
import impls.numpy.evaluate
import impls.numpy.mlp
import impls.numpy.noise
import impls.torch.device
import impls.torch.dropout
import impls.torch.evaluate
import impls.torch.mlp
import impls.torch.noise
import impls.torch.train
from shared.config import Config
from shared.data import Data, to_arrays
from shared.records import EpochRecord

# float32 + float64 is an error instead of a silent change of precision.
jax.config.update("jax_numpy_dtype_promotion", "strict")

PARTS = ("dropout", "noise", "mlp", "evaluate", "train", "device")


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A framework: its modules, and how to make and read its arrays."""

    name: str
    dropout: ModuleType
    noise: ModuleType
    mlp: ModuleType
    evaluate: ModuleType
    train: Any = None  # as the device, in PyTorch and JAX only
    device: Any = None

    @property
    def training(self) -> dict[str, bool]:
        """Return the argument that switches dropout of a network on, where there is one."""
        return {"training": True} if self.name == "numpy" else {}

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

    def network(self, config: Config, data: Data) -> tuple[Any, Any, tuple[Any, ...]]:
        """Return the network of a run, its optimizer, and the arrays to train on."""
        self.device.use(config.device, config.dtype, config.precision)
        arrays = tuple(self.array(array) for array in to_arrays(data, config.dtype))
        model = self.mlp.MLP.from_config(config, inputs=arrays[0].shape[1])
        return model, self.optimizer(model, config.lr), arrays

    def optimizer(self, model: Any, lr: float) -> Any:
        """Return the optimizer of the lesson."""
        if self.name == "torch":
            return torch.optim.SGD(model.parameters(), lr=lr)
        return nnx.Optimizer(model, sgd(lr), wrt=nnx.Param)

    def run(self, config: Config, data: Data) -> tuple[list[EpochRecord], dict[str, np.ndarray]]:
        """Train as `main` does. Return the records and the weights."""
        model, optimizer, arrays = self.network(config, data)
        return list(self.train.train(model, optimizer, arrays, config)), model.get_weights()


sgd = functools.cache(optax.sgd)  # JAX compiles anew for each new one, even of the same rate

TORCH = Adapter("torch", *(getattr(impls.torch, part) for part in PARTS))
JAX = Adapter("jax", *(getattr(impls.jax, part) for part in PARTS))
NUMPY = Adapter("numpy", *(getattr(impls.numpy, part) for part in PARTS[:4]))
ALL = (TORCH, JAX, NUMPY)
WITH_GRADIENT = (TORCH, JAX)
