"""NumPy for the contract."""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from dropout_contract.backends.base import Backend, Drawn


class ConstantRng(np.random.Generator):
    """A NumPy generator whose uniform numbers are all the same."""

    value = 0.0
    drawn: "Drawn"

    def spawn(self, n_children: int) -> Any:
        return [self] * n_children

    def random(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        if out is None:
            out = np.empty(() if size is None else size, dtype)
        out[...] = self.value
        self.drawn.append(out.size)
        return out

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return low + (high - low) * self.random(size)


class Framework(Backend):
    """NumPy. It has no gradients."""

    name = "numpy"
    source_name = "rng"
    dtypes = ("float16", "float32", "float64")
    has_gradient = False
    xp = np
    constant: "tuple[float, Drawn] | None" = None

    def source(self, seed: int) -> Any:
        if self.constant is None:
            return np.random.default_rng(seed)
        rng = ConstantRng(np.random.PCG64(seed))
        rng.value, rng.drawn = self.constant
        return rng

    def state(self, source: Any) -> Any:
        return str(source.bit_generator.state)

    def saved(self, sources: dict[str, Any]) -> Any:
        if sources:
            return sources[self.source_name].bit_generator.state
        return random.getstate(), np.random.get_state()

    def put_back(self, sources: dict[str, Any], state: Any) -> None:
        if sources:
            sources[self.source_name].bit_generator.state = state
            return
        random.setstate(state[0])
        np.random.set_state(state[1])

    def array(self, values: Any, dtype: str = "float32") -> Any:
        return np.asarray(values).astype(dtype)

    def numpy(self, array: Any) -> np.ndarray:
        array = np.asarray(array)
        return array.astype(np.float32) if array.dtype == np.float16 else array

    def is_array(self, value: Any) -> bool:
        return isinstance(value, np.ndarray | np.generic)

    def uniform(self, source: Any, shape: tuple[int, ...]) -> Any:
        return np.asarray(source.random(shape, dtype=np.float32))

    def normal(self, source: Any, shape: tuple[int, ...]) -> Any:
        return np.asarray(source.standard_normal(shape, dtype=np.float32))

    def global_uniform(self, shape: tuple[int, ...]) -> Any:
        return np.asarray(np.random.random(shape)).astype(np.float32)

    @contextlib.contextmanager
    def uniforms_are(self, value: float) -> Iterator[Drawn]:
        drawn = Drawn()
        self.constant = value, drawn
        try:
            yield drawn
        finally:
            self.constant = None

    def strided(self, values: np.ndarray) -> dict[str, tuple[Any, np.ndarray]]:
        values = values.astype(np.float32)
        return {
            "transposed": (values.transpose(3, 1, 0, 2), values.transpose(3, 1, 0, 2)),
            "every second": (values[:, :, ::2], values[:, :, ::2]),
            "backwards": (values[::-1, :, :, ::-1], values[::-1, :, :, ::-1]),
            "the second half": (values[1:], values[1:]),
            "expanded": (np.broadcast_to(values[:1], (6, 3, 4, 5)),) * 2,
        }
