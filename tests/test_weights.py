"""Weight files that one framework saves and the others read, and files that are refused."""

import json
import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch
import torch.utils.checkpoint
from safetensors.numpy import save_file

from shared.checks import InputError
from shared.randomness import initial_weights
from shared.weights import NAMES, layer_sizes, load_weights, save_weights
from tests.adapters import ALL, JAX, NUMPY, TORCH, Adapter

SIZES = (16, 7, 5, 3)  # all different, so that a missing transpose is an error


@pytest.mark.parametrize("reader", ALL, ids=lambda adapter: adapter.name)
def test_saved_by_one_read_by_another(framework: Adapter, reader: Adapter, tmp_path):
    path = tmp_path / "weights.safetensors"
    writer_model = framework.mlp.MLP(*SIZES, seed=3)
    save_weights(path, writer_model.get_weights())
    reader_model = reader.mlp.MLP(*SIZES, seed=4)
    reader_model.set_weights(load_weights(path))
    x = np.random.default_rng(0).random((4, SIZES[0]), np.float32)
    logits = []
    for adapter, model in ((framework, writer_model), (reader, reader_model)):
        if adapter.train:
            model.eval()
        logits.append(adapter.numpy(model(adapter.array(x))))
    np.testing.assert_allclose(*logits, atol=1e-6)


def test_same_weights_same_bytes(tmp_path):
    weights = initial_weights(*SIZES, seed=0)
    save_weights(tmp_path / "a", weights)
    save_weights(tmp_path / "b", dict(reversed(weights.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def broken(**changes):
    weights = initial_weights(*SIZES, seed=0) | changes
    return {name: array for name, array in weights.items() if array is not None}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a readable safetensors file"),
        (b"not a weight file", "not a readable safetensors file"),
        (safetensors.numpy.save(broken())[:-8], "not a readable safetensors file"),
        (safetensors.numpy.save({"a": np.zeros(3)}), "expected the arrays linear_1.weight"),
        (safetensors.numpy.save(broken(**{"linear_2.bias": None})), "expected the arrays"),
        (
            safetensors.numpy.save(broken(**{"linear_2.weight": np.zeros((7, 5), np.float32)})),
            "linear_2: ",
        ),
        (
            safetensors.numpy.save(
                broken(
                    **{
                        "linear_3.weight": np.zeros((3, 2, 5), np.float32),
                        "linear_3.bias": np.zeros((3, 2), np.float32),
                    }
                )
            ),
            "linear_3: ",
        ),
        (safetensors.numpy.save(broken(**{"linear_1.weight": np.float32([1])})), "linear_1: "),
        (safetensors.numpy.save(broken(**{"linear_3.bias": np.zeros(3)})), "all float32 or all"),
        (
            safetensors.numpy.save(broken(**{"linear_3.bias": np.float32([0, np.nan, 0])})),
            "not all finite",
        ),
    ],
)
def test_what_is_not_a_weight_file(content: bytes, complaint: str, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        load_weights(path)


def test_the_code_for_people_who_port_a_model_works(tmp_path, monkeypatch):
    guide = (Path(__file__).parents[1] / "docs" / "porting.md").read_text()
    to_torch, to_flax, *_ = re.findall(r"```python\n(.*?)```", guide, re.S)
    weights = initial_weights(784, 256, 256, 10, seed=5)
    for name in ("torch", "jax"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        save_weights(tmp_path / "runs" / name / "weights.safetensors", weights)
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


@pytest.mark.parametrize("dtype", ["float16", "int32"])
def test_another_dtype_is_refused(dtype: str, tmp_path):
    weights = initial_weights(16, 7, 5, 3, seed=3)
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file({name: a.astype(dtype) for name, a in weights.items()}, path)
    with pytest.raises(InputError, match=dtype):
        load_weights(path)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="no weight file"):
        load_weights(tmp_path / "nothing")
    with pytest.raises(InputError, match="is a folder"):
        load_weights(tmp_path)


def test_a_weight_file_is_replaced_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    save_weights(path, initial_weights(16, 7, 5, 3, seed=0))
    old = path.read_bytes()
    os.link(path, tmp_path / "reader")  # somebody who has the old file open
    save_weights(path, initial_weights(16, 7, 5, 3, seed=1))
    new = path.read_bytes()
    assert new != old
    assert (tmp_path / "reader").read_bytes() == old, "written into the old file"

    def disk_full(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="no space"):
        save_weights(path, initial_weights(16, 7, 5, 3, seed=2))
    assert path.read_bytes() == new
    assert sorted(p.name for p in tmp_path.iterdir()) == ["reader", "weights.safetensors"]


def test_the_sizes_are_in_the_order_of_the_layers():
    assert layer_sizes(initial_weights(5, 4, 3, 2, seed=0)) == (5, 4, 3, 2)


def test_weights_may_be_zero_but_not_nan():
    weights = initial_weights(5, 4, 3, 2, seed=0)
    layer_sizes(weights | {"linear_2.bias": np.zeros(3, np.float32)})
    for bad in (np.nan, np.inf):
        with pytest.raises(InputError, match="not all finite"):
            layer_sizes(weights | {"linear_2.bias": np.full(3, bad, np.float32)})


@pytest.mark.parametrize("shape", [(1,) * 65, (1,) * 10_000, (2**40, 1)], ids=len)
def test_odd_shapes_are_one_line(shape, tmp_path):
    path = tmp_path / "weights.safetensors"
    header = {
        name: {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 4]} for name in NAMES[:1]
    }
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    with pytest.raises(InputError) as refused:
        load_weights(path)
    assert len(str(refused.value)) < 1000


def test_names_in_a_file_are_not_printed_raw(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"\x1b[31mred\nline" + "x" * 1000: np.zeros(1, np.float32)}, path)
    with pytest.raises(InputError) as refused:
        load_weights(path)
    assert "?[31mred?line" in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        load_weights(tmp_path / "pipe")


def test_a_huge_network_is_refused_before_it_is_read(tmp_path):
    weights = initial_weights(4, 2, 2, 2, seed=0) | {
        "linear_1.weight": np.zeros((1, 1500 * 1500), np.float32)
    }
    save_file(weights, tmp_path / "huge")
    with pytest.raises(InputError, match="2,250,000 inputs is too large"):
        load_weights(tmp_path / "huge")
