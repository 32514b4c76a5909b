"""Weight files that one framework saves and the others read, and files that are refused."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from safetensors.numpy import save

from shared.checks import InputError
from shared.randomness import initial_weights
from shared.weights import layer_sizes, load_weights, to_bytes
from tests.adapters import ALL, JAX, NUMPY, TORCH, Adapter

SIZES = (16, 7, 5, 3)  # all different, so that a missing transpose is an error


@pytest.mark.parametrize("reader", ALL, ids=lambda adapter: adapter.name)
def test_saved_by_one_read_by_another(framework: Adapter, reader: Adapter, tmp_path):
    path = tmp_path / "weights.safetensors"
    writer_model = framework.mlp.MLP(*SIZES, seed=3)
    path.write_bytes(to_bytes(writer_model.get_weights()))
    reader_model = reader.mlp.MLP(*SIZES, seed=4)
    reader_model.set_weights(load_weights(path))
    x = np.random.default_rng(0).random((4, SIZES[0]), np.float32)
    logits = []
    for adapter, model in ((framework, writer_model), (reader, reader_model)):
        if adapter.train:
            model.eval()
        logits.append(adapter.numpy(model(adapter.array(x))))
    np.testing.assert_allclose(*logits, atol=1e-6)


def test_same_weights_same_bytes():
    weights = initial_weights(*SIZES, seed=0)
    assert layer_sizes(weights) == SIZES
    assert to_bytes(weights) == to_bytes(dict(reversed(weights.items())))


def changed(**changes) -> bytes:
    weights = initial_weights(*SIZES, seed=0) | changes
    return save({name: array for name, array in weights.items() if array is not None})


def header(**of_first) -> bytes:
    """A file of which only the header is there."""
    first = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **of_first}
    text = json.dumps({"linear_1.weight": first}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(4)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a readable safetensors file"),
        (b"not a weight file", "not a readable safetensors file"),
        (changed()[:-8], "not a readable safetensors file"),
        (header(dtype="F8_E4M3"), "not a readable safetensors file"),
        (header(shape=[1] * 65), "is not a readable|does not hold"),
        (save({"a": np.zeros(3)}), "does not hold the weights of this network"),
        (changed(**{"linear_2.bias": None}), "expected the arrays linear_1.weight"),
        (changed(extra=np.zeros(1)), "expected the arrays .* got .*extra"),
        (changed(**{"linear_2.weight": np.zeros((7, 5), np.float32)}), "linear_2.weight must have"),
        (changed(**{"linear_3.weight": np.zeros((3, 2, 5), np.float32)}), "does not hold"),
        (changed(**{"linear_1.weight": np.float32([1])}), "does not hold the weights"),
        (changed(**{"linear_3.bias": np.zeros(3)}), "all float32 or all float64"),
        (changed(**{"linear_3.bias": np.float32([0, np.nan, 0])}), "not all finite"),
        (changed(**{"linear_3.bias": np.float32([0, np.inf, 0])}), "not all finite"),
        *(
            (save({n: a.astype(dtype) for n, a in initial_weights(*SIZES, seed=3).items()}), dtype)
            for dtype in ("float16", "int32")
        ),
    ],
)  # fmt: skip
def test_what_is_not_a_weight_file(content: bytes, complaint: str, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        load_weights(path)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="no weight file"):
        load_weights(tmp_path / "nothing")
    with pytest.raises(InputError, match="not a readable"):
        load_weights(tmp_path)


def test_the_code_for_people_who_port_a_model_works(tmp_path, monkeypatch):
    guide = (Path(__file__).parents[1] / "docs" / "porting.md").read_text()
    to_torch, to_flax, *_ = re.findall(r"```python\n(.*?)```", guide, re.S)
    weights = initial_weights(784, 256, 256, 10, seed=5)
    for name in ("torch", "jax"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "weights.safetensors").write_bytes(to_bytes(weights))
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).random((3, 784), np.float32)
    ours = NUMPY.mlp.MLP(784, 256, 256, 10, seed=5)(x)
    for code, adapter in ((to_torch, TORCH), (to_flax, JAX)):
        names: dict = {}
        exec(code, names)
        logits = adapter.numpy(names["model"](adapter.array(x)))
        np.testing.assert_allclose(logits, ours, atol=1e-6)


def test_what_the_porting_guide_says_of_containers_and_of_checkpoint_is_true():
    guide = (Path(__file__).parents[1] / "docs" / "porting.md").read_text()
    *_, sequential, checkpointed = re.findall(r"```python\n(.*?)```", guide, re.S)
    names: dict = {}
    exec(sequential, names)
    model, x = names["model"], torch.ones(4, 784)
    assert not torch.equal(model(x) == 0, model(x) == 0), "two calls draw one mask"
    model.eval()
    assert torch.equal(model(x), model[0](x))
    exec(checkpointed, names)
    assert torch.equal(names["x"].grad, names["out"]), "the gradient at x = 1 is the output"
    # Without `keep`, the mask of the backward pass is another one.
    x = torch.ones(8, 100, requires_grad=True)
    layer, generator = names["layer"], names["generator"]
    out = torch.utils.checkpoint.checkpoint(
        lambda x: layer(x, generator=generator), x, use_reentrant=False
    )
    out.sum().backward()
    assert not torch.equal(x.grad, out)
    x = jnp.ones((8, 100))
    dropped, vjp = jax.vjp(
        jax.checkpoint(lambda x: JAX.dropout.dropout(x, 0.5, training=True, key=jax.random.key(0))),
        x,
    )
    np.testing.assert_array_equal(vjp(x)[0], dropped)
