"""`select` is `torch.where(keep, values, 0)` to the bit: values, gradients and layout."""

import numpy as np
import pytest
import torch

from impls.torch.selection import select

SPECIAL = (0.0, -0.0, 1.5, -1.5, float("inf"), -float("inf"), float("nan"), 1e-40, 6e4)
LAYOUTS = {
    "rows": lambda x: x,
    "transposed": lambda x: x.permute(3, 1, 0, 2),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every second": lambda x: x[..., ::2],
    "from an offset": lambda x: x[1:, 1:],
    "expanded": lambda x: x[:1].expand(5, -1, -1, -1),
    "one number": lambda x: x[0, 0, 0, 0],
    "empty": lambda x: x[:0],
}


def bits(x: torch.Tensor) -> np.ndarray:
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    return x.detach().contiguous().view(kind).numpy()


def values_of(dtype: torch.dtype) -> torch.Tensor:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 3, 6, 5))
    values.reshape(-1)[:: len(SPECIAL) + 1] = np.resize(SPECIAL, len(values.reshape(-1)[::10]))
    return torch.tensor(values).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("of_values", LAYOUTS)
@pytest.mark.parametrize("of_keep", ["rows", "as values"])
def test_equals_where_to_the_bit(dtype: torch.dtype, of_values: str, of_keep: str):
    values = LAYOUTS[of_values](values_of(dtype))
    keep = torch.tensor(np.random.default_rng(1).random(tuple(values.shape)) > 0.4)
    if of_keep == "as values":
        keep = torch.empty_like(values, dtype=torch.bool).copy_(keep)
    incoming = torch.flip(values, (0,)) if values.ndim else values + 1
    results = []
    for function in (select, lambda k, v: torch.where(k, v, 0)):
        leaf = values.detach().requires_grad_()
        result = function(keep, leaf)
        result.backward(incoming)
        results.append((result, leaf.grad))
    (ours, our_gradient), (theirs, their_gradient) = results
    np.testing.assert_array_equal(bits(ours), bits(theirs))
    np.testing.assert_array_equal(bits(our_gradient), bits(their_gradient))
    assert ours.dtype == dtype
    assert ours.stride() == torch.empty_like(values).stride()


def test_gradients_of_gradients():
    values = values_of(torch.float64)[:2, :2].nan_to_num(1, 1, 1).requires_grad_()
    keep = torch.tensor(np.random.default_rng(1).random(tuple(values.shape)) > 0.4)
    assert torch.autograd.gradcheck(lambda v: select(keep, v * v), values, atol=1e-3)
    assert torch.autograd.gradgradcheck(lambda v: select(keep, v * v), values, atol=1e-3)


def test_arguments_are_left_alone():
    values, keep = torch.ones(6), torch.tensor([True, False] * 3)
    result = select(keep, values)
    result += 1
    assert values.tolist() == [1.0] * 6
    assert keep.tolist() == [True, False] * 3
