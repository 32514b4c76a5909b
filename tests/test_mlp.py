"""Same masks and same weights: the same logits, loss, gradients and steps in all three."""

import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import torch
from flax import nnx
from scipy.special import softmax

from shared.randomness import initial_weights
from shared.weights import NAMES, layer_sizes
from tests.adapters import ALL, JAX, NUMPY, TORCH, Adapter
from tests.conftest import largest_difference

# All sizes differ, so that a transposed weight cannot pass.
SIZES = (784, 61, 37, 10)
N = 64
LR = 0.5

# float32: a dot product of 784 terms of size 1 has a rounding error of about sqrt(784) * 2**-24 =
# 2e-6. Three layers, forward and backward, are six such products in a row, so 1e-5 is allowed for
# one pass. Ten steps at a learning rate of 0.5 add ten gradients with such errors, and the network
# may double an error a few times: 1e-4 is allowed.
TOLERANCE = {"float64": (1e-10, 1e-10), "float32": (1e-5, 1e-4)}  # one pass, ten steps


def arrays(dtype: str):
    rng = np.random.default_rng(5)
    x = rng.uniform(size=(N, SIZES[0])).astype(dtype)
    labels = rng.integers(0, 10, N)
    keep = tuple(
        rng.random((N, width)) >= p for width, p in zip(SIZES[1:3], (0.2, 0.5), strict=True)
    )
    return x, labels, keep


def one_pass(dtype: str) -> dict[str, dict[str, np.ndarray]]:
    """Return logits, loss and every gradient of each framework, named as in a weight file."""
    x, labels, keep = arrays(dtype)
    results: dict[str, dict[str, np.ndarray]] = {}

    model = TORCH.mlp.MLP(*SIZES, dtype=dtype)
    logits = model(torch.tensor(x), keep=tuple(torch.tensor(k) for k in keep))
    loss = TORCH.evaluate.cross_entropy(logits, torch.tensor(labels))
    loss.backward()
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters()}
    results["torch"] = {"logits": logits.detach().numpy(), "loss": loss.detach().numpy()}
    results["torch"] |= gradients

    model = JAX.mlp.MLP(*SIZES, dtype=dtype)

    def loss_and_logits(model):
        logits = model(jnp.asarray(x), keep=tuple(map(jnp.asarray, keep)))
        return JAX.evaluate.cross_entropy(logits, jnp.asarray(labels)), logits

    differentiate = nnx.jit(nnx.value_and_grad(loss_and_logits, has_aux=True))
    (loss, logits), gradient = differentiate(model)
    holder = JAX.mlp.MLP(*SIZES, dtype=dtype)  # its get_weights turns gradients into arrays
    nnx.update(holder, gradient)
    results["jax"] = {"logits": np.asarray(logits), "loss": np.asarray(loss)}
    results["jax"] |= holder.get_weights()

    model = NUMPY.mlp.MLP(*SIZES, dtype=dtype)
    logits = model(x, training=True, keep=keep)
    results["numpy"] = {"logits": logits, "loss": NUMPY.evaluate.cross_entropy(logits, labels)}
    return results


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_logits_loss_and_every_gradient(dtype: str):
    jax.config.update("jax_enable_x64", dtype == "float64")
    results = one_pass(dtype)
    for other in ("jax", "numpy"):
        for what, values in results[other].items():
            assert values.dtype == dtype
            difference = largest_difference(values, results["torch"][what])
            assert difference <= TOLERANCE[dtype][0], f"{what}: torch - {other} = {difference:.2e}"
    assert set(NAMES) <= set(results["jax"]), "every gradient was compared"
    assert all(np.abs(results["torch"][name]).max() > 1e-4 for name in NAMES)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_ten_steps(dtype: str):
    x, labels, _ = arrays(dtype)
    masks = [tuple(NUMPY.keep((N, w), 0.3, seed=10 * s + w) for w in SIZES[1:3]) for s in range(10)]
    losses: dict[str, list[float]] = {"torch": [], "jax": []}

    model = TORCH.mlp.MLP(*SIZES, dtype=dtype)
    optimizer = TORCH.optimizer(model, LR)
    for keep in masks:
        keep = tuple(torch.tensor(k) for k in keep)
        loss, _ = TORCH.train.train_step(
            model, optimizer, torch.tensor(x), torch.tensor(labels), keep=keep
        )
        losses["torch"].append(loss.item())

    jax.config.update("jax_enable_x64", dtype == "float64")
    twin = JAX.mlp.MLP(*SIZES, dtype=dtype)
    twin_optimizer = JAX.optimizer(twin, LR)
    twin_step = nnx.jit(JAX.train.train_step)
    for keep in masks:
        arguments = [jnp.asarray(array) for array in (x, labels)]
        keep = tuple(map(jnp.asarray, keep))
        loss, _ = twin_step(twin, twin_optimizer, *arguments, keep=keep)
        losses["jax"].append(loss.item())
    differences = {
        name: largest_difference(weight, twin.get_weights()[name])
        for name, weight in model.get_weights().items()
    }
    differences["loss"] = largest_difference(losses["torch"], losses["jax"])
    assert max(differences.values()) <= TOLERANCE[dtype][1], differences
    assert losses["torch"][-1] < losses["torch"][0], "the ten steps did learn"


def test_large_logits_have_a_finite_loss(framework: Adapter):
    logits = framework.array(np.array([[1000, 0], [-1000, 0], [-3000, -3000]], np.float32))
    labels = framework.array(np.array([0, 0, 1]))
    loss = float(framework.evaluate.cross_entropy(logits, labels))
    assert loss == pytest.approx((0 + 1000 + math.log(2)) / 3)


def test_weights_can_be_set_after_the_optimizer_is_made(trainable: Adapter):
    # The optimizer must keep the same parameters. With replaced ones nothing would be trained.
    model = trainable.mlp.MLP(9, 7, 5, 3)
    optimizer = trainable.optimizer(model, 0.5)
    weights = initial_weights(9, 7, 5, 3, seed=4)
    model.set_weights(weights)
    images = trainable.array(np.random.default_rng(0).random((4, 9), np.float32))
    labels = trainable.array(np.arange(4) % 3)
    step = trainable.train.train_step
    step = nnx.jit(step) if trainable is JAX else step  # compiled at once
    step(model, optimizer, images, labels, **trainable.source(0))
    assert (model.get_weights()["linear_3.weight"] != weights["linear_3.weight"]).any()


def test_set_weights_changes_the_dtype(framework: Adapter):
    jax.config.update("jax_enable_x64", True)
    model = framework.mlp.MLP(9, 7, 5, 3)
    model.set_weights(initial_weights(9, 7, 5, 3, seed=4, dtype="float64"))
    assert {str(array.dtype) for array in model.get_weights().values()} == {"float64"}


def test_float64_needs_jax_s_switch():
    with pytest.raises(ValueError, match="enable_x64"):
        JAX.mlp.MLP(9, 7, 5, 3, dtype="float64")


GOOD = initial_weights(9, 7, 5, 3, seed=0)


@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        ({}, ValueError, "expected the arrays linear_1.weight, .*; got $"),
        ({name: GOOD[name] for name in NAMES[2:]}, ValueError, "got linear_2.weight, "),
        (GOOD | {"linear_4.bias": np.zeros(3, np.float32)}, ValueError, "linear_4.bias"),
        (GOOD | {"linear_3.bias": GOOD["linear_3.bias"][:, None]}, ValueError, r"got \(3, 1\)"),
        (GOOD | {"linear_2.weight": GOOD["linear_2.weight"].T}, ValueError, r"\(5, 7\), got"),
        (initial_weights(9, 8, 5, 3, seed=0), ValueError, r"the shape \(7, 9\), got \(8, 9\)"),
        *(
            ({name: array.astype(dtype) for name, array in GOOD.items()}, TypeError, f"got {dtype}")
            for dtype in ("int32", "float16", "complex64")
        ),
        (GOOD | {"linear_3.bias": np.zeros(3)}, TypeError, "got float32, float64"),
    ],
)
def test_weights_that_do_not_fit_are_refused_alike(weights, error, words):
    messages = set()
    for framework in ALL:
        model = framework.mlp.MLP(9, 7, 5, 3)
        with pytest.raises(error, match=words) as refused:
            model.set_weights(weights)
        messages.add(str(refused.value))
        for name, array in model.get_weights().items():
            np.testing.assert_array_equal(array, GOOD[name])
    assert len(messages) == 1


def test_a_network_takes_masks_in_training_only(framework: Adapter):
    model = framework.mlp.MLP(8, 6, 5, 3)
    x = framework.array(np.random.default_rng(0).random((2, 8), np.float32))
    nothing = tuple(framework.array(np.zeros((2, width), bool)) for width in (6, 5))
    bias = model.get_weights()["linear_3.bias"]
    dropped = framework.numpy(model(x, keep=nothing, **framework.training))
    np.testing.assert_array_equal(dropped, np.stack([bias, bias]))
    if framework is not NUMPY:
        model.eval()
    off = framework.numpy(model(x))
    np.testing.assert_array_equal(framework.numpy(model(x, keep=nothing)), off)
    assert (off != dropped).all()


def test_the_default_network_is_the_article_s(framework: Adapter):
    weights = framework.mlp.MLP().get_weights()
    assert layer_sizes(weights) == (784, 256, 256, 10)
    assert {str(array.dtype) for array in weights.values()} == {"float32"}
    for name, array in initial_weights(784, 256, 256, 10, seed=0).items():
        np.testing.assert_array_equal(weights[name], array)


def aligned(array: np.ndarray) -> np.ndarray:
    """Return a copy at an address that JAX could use as it is, without a copy."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    result = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    result[...] = array
    return result


def test_a_network_shares_no_memory_with_the_weights_given_or_returned(framework: Adapter):
    expected = initial_weights(64, 48, 32, 16, seed=4)
    given = {name: aligned(array) for name, array in expected.items()}
    model = framework.mlp.MLP(64, 48, 32, 16)
    model.set_weights(given)
    returned = model.get_weights()
    for array in (*given.values(), *returned.values()):
        array[...] = 0
    for name, array in model.get_weights().items():
        np.testing.assert_array_equal(array, expected[name])
        assert array.flags.c_contiguous


def modes(model) -> list[bool]:
    if isinstance(model, torch.nn.Module):
        return [module.training for module in model.modules()]
    return [not layer.deterministic for layer in (model.dropout_1, model.dropout_2)]


@pytest.mark.parametrize("layer", ["dropout_1", "dropout_2", "linear_1"])
@pytest.mark.parametrize("training", [True, False])
def test_evaluate_puts_back_the_mode_of_every_layer(trainable: Adapter, layer: str, training: bool):
    model = trainable.mlp.MLP(8, 6, 5, 3)
    (model.train if training else model.eval)()
    child = getattr(model, layer)
    (child.eval if training else child.train)()  # one layer in the other mode
    before = modes(model)
    images = trainable.array(np.random.default_rng(0).random((16, 8), np.float32))
    trainable.evaluate.evaluate(model, images, trainable.array(np.arange(16) % 3))
    assert modes(model) == before
    with pytest.raises((jaxtyping.TypeCheckError, RuntimeError, TypeError, ValueError)):
        trainable.evaluate.evaluate(model, images[:, :7], trainable.array(np.arange(16) % 3))
    assert modes(model) == before


def test_evaluate_is_the_mean_loss_and_the_fraction_that_is_right(framework: Adapter):
    model, rng = framework.mlp.MLP(8, 6, 5, 3), np.random.default_rng(0)
    images, labels = rng.random((16, 8), np.float32), np.arange(16) % 3
    scores = framework.evaluate.evaluate(model, framework.array(images), framework.array(labels))
    assert [type(score) for score in scores] == [float, float]
    logits = NUMPY.mlp.MLP(8, 6, 5, 3)(images).astype(np.float64)
    expected = -np.log(softmax(logits, axis=1)[range(16), labels]).mean()
    assert scores == pytest.approx((expected, np.mean(logits.argmax(1) == labels)), rel=1e-5)


def test_a_wrong_shape_or_dtype_contradicts_the_annotations(framework: Adapter):
    model = framework.mlp.MLP(8, 6, 5, 3)
    x = framework.array(np.ones((2, 8), np.float32))
    labels = framework.array(np.zeros(3, np.int64))  # one too many
    for function, arguments in (
        (model, (x[0],)),
        (framework.evaluate.cross_entropy, (x, labels)),
        (framework.evaluate.cross_entropy, (x, x[0, :2])),
        (framework.dropout.apply_keep, (x, x[:1] > 0, 0.5)),
    ):
        with pytest.raises(jaxtyping.TypeCheckError):
            function(*arguments)
