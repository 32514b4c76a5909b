"""The clause that dropout is the same under the transformations of its framework."""

from typing import Any

import numpy as np

from tests.contract.run import NotApplicable, Run


def transforms_give_the_same(run: Run) -> None:
    """jit, vmap, grad and scan (JAX), func and compile (PyTorch) give what plain calls give."""
    if run.subject.seeded_by_number and run.backend.name == "jax":
        raise NotApplicable("seeded by a whole number, which cannot be traced")
    {"torch": _torch_transforms, "jax": _jax_transforms, "numpy": _no_transforms}[run.backend.name](
        run
    )


def _no_transforms(run: Run) -> None:
    raise NotApplicable("NumPy transforms nothing")


def _jax_transforms(run: Run) -> None:
    import jax
    import jax.numpy as jnp

    def f(x: Any, key: Any) -> Any:
        return run.subject.function(x, 0.5, training=True, key=key)

    keys = jax.random.split(run.backend.source(run.new_seed()), 4)
    x = jnp.asarray(run.numbers(4, 256))
    plain = np.stack([np.asarray(f(*pair)) for pair in zip(x, keys, strict=True)])
    gradient = np.stack(
        [np.asarray(jax.grad(lambda x, k: f(x, k).sum())(*p)) for p in zip(x, keys, strict=True)]
    )
    assert len({row.tobytes() for row in plain != 0}) == 4, "keys that give one mask"
    results = {
        "jit": np.stack([jax.jit(f)(*pair) for pair in zip(x, keys, strict=True)]),
        "vmap": jax.vmap(f)(x, keys),
        "jit of vmap": jax.jit(jax.vmap(f))(x, keys),
        "scan": jax.lax.scan(lambda c, pair: (c, f(*pair)), 0, (x, keys))[1],
        "vmap of grad": jax.vmap(jax.grad(lambda x, k: f(x, k).sum()))(x, keys),
        "jit of grad": np.stack(
            [jax.jit(jax.grad(lambda x, k: f(x, k).sum()))(*p) for p in zip(x, keys, strict=True)]
        ),
        "jvp": jax.jvp(lambda x: jax.vmap(f)(x, keys), (x,), (jnp.ones_like(x),))[1],
    }
    for name, result in results.items():
        expected = gradient if "grad" in name or name == "jvp" else plain
        np.testing.assert_allclose(result, expected, rtol=1e-6, err_msg=name)
    evaluation = jax.jit(lambda x: run.subject.function(x, 0.5, training=False))(x)
    np.testing.assert_array_equal(evaluation, x)


def _torch_transforms(run: Run) -> None:
    import torch

    seed = run.new_seed()

    def f(x: Any) -> Any:
        return run.subject(x, 0.5, seed=seed)

    x = run.backend.array(run.numbers(16))
    plain = f(x)
    gradient = run.backend.gradient(f, x, torch.ones(16))
    results = {"func.grad": torch.func.grad(lambda x: f(x).sum())(x)}
    results["func.vjp"] = torch.func.vjp(f, x)[1](torch.ones(16))[0]
    results["func.jvp"] = torch.func.jvp(f, (x,), (torch.ones(16),))[1]
    for name, result in results.items():
        np.testing.assert_allclose(run.backend.numpy(result), gradient, rtol=1e-6, err_msg=name)
    # One mask for all examples is what vmap means by "same".
    batch = torch.stack([x, 2 * x])
    together = torch.func.vmap(f, randomness="same")(batch)
    np.testing.assert_allclose(together, torch.stack([plain, 2 * plain]), rtol=1e-6)
    # Compiled without a backend that generates code: what is traced is what is tested here.
    source = run.subject.source(seed)
    compiled = torch.compile(
        lambda x: run.subject.function(x, 0.5, training=True, **source), backend="eager"
    )
    np.testing.assert_array_equal(compiled(x), plain)
    torch._dynamo.reset()
