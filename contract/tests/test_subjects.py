"""Functions and layers as people write them become subjects, and what cannot be is told so."""

import functools
import logging
import threading

import jax
import numpy as np
import pytest
import torch
from dropout_contract import CannotCheck, check, parametrize_with_clauses, subject
from dropout_contract.clauses import CLAUSES
from dropout_contract.right import on_torch

SLOW = ("compiled_gives_the_same", "same_mask_in_another_process", "threads_do_not_mix")
EXACT = [name for name, c in CLAUSES.items() if not c.statistical and name not in SLOW]


class Scaled(torch.nn.Module):
    """A right layer, except that its constructor needs more than a rate."""

    def __init__(self, p, width, color):
        super().__init__()
        self.p = p

    def forward(self, x):
        return on_torch.global_generator(x, self.p, self.training)


def forgets_to_rescale(x, p, training=True, generator=None):
    return torch.where(torch.rand(x.shape, generator=generator) >= p, x, 0) if training else x


def article(X, dropout):  # noqa: N803 - as it is written there
    mask = (torch.rand(X.shape) > dropout).float()
    return mask * X / (1.0 - dropout)


@pytest.mark.parametrize(
    ("what", "framework"),
    [
        (on_torch.plain_where, "torch"),
        (article, "torch"),
        (on_torch.Layer, "torch"),
        (on_torch.Layer(0.2), "torch"),
        (torch.nn.functional.dropout, "torch"),
        (lambda x, p, key: jax.numpy.where(jax.random.uniform(key, x.shape) >= p, x, 0), "jax"),
        (jax.jit(lambda x, p, key: x), "jax"),
        (functools.partial(on_torch.global_generator, training=True), "torch"),
        (lambda x, p, rng: x * (rng.random(x.shape) >= p) / (1 - p), "numpy"),
        (lambda x, p, rng: np.where(rng.random(x.shape) >= p, x / (1 - p), 0), "numpy"),
    ],
)
def test_the_framework_is_guessed(what, framework):
    assert subject(what).framework == framework


def test_the_article_s_function_is_checked_as_it_stands():
    found = subject(article)
    assert not found.takes_source
    assert not found.has_evaluation
    report = check(article, only=["values", "identity_in_evaluation", "zeros_at_one"])
    assert [result.outcome for result in report.results] == ["passed", "not applicable", "deviates"]


def test_an_instance_is_checked_at_its_own_rate_and_left_in_its_mode():
    layer = on_torch.Layer(0.3).eval()
    report = check(layer, only=["keep_rate", "zeros_at_one", "values"])
    assert report.ok
    assert report.count("not applicable") == 1  # p = 1
    assert not layer.training


def leaves(x, p):
    raise SystemExit(0)


async def waits(x, p):
    return x


@pytest.mark.parametrize(
    ("what", "framework", "says"),
    [
        (leaves, "numpy", "it raised SystemExit"),
        (waits, "numpy", "instead of an array"),
        (lambda x, p: None, "numpy", "instead of an array"),
        (Scaled, None, "cannot tell what its argument 'width' is"),
        (lambda x, p: x, None, "say --framework"),
        (lambda x, p: x, "tensorflow", "must be torch, jax or numpy"),
        (lambda x, p, colour: x, "numpy", "write an adapter"),
        (3, "numpy", "not a function or a layer"),
        (on_torch.plain_where, "numpy", "Is the framework right?"),
        (on_torch.plain_where, "jax", "Is the framework right?"),
        ("nothing", None, "not of the form"),
        ("no_such_package:f", None, "cannot import"),
        ("numpy:no_such_thing", None, "cannot find"),
        ("nowhere.py:f", None, "there is no file"),
    ],
)
def test_what_cannot_be_checked_says_what_to_do(what, framework, says):
    with pytest.raises(CannotCheck, match=says.replace("?", r"\?")):
        check(what, framework, only="values")


def test_a_rate_that_is_not_the_layer_s_is_refused():
    with pytest.raises(CannotCheck, match=r"has p = 0\.3, not 0\.7"):
        check(on_torch.Layer(0.3), p=0.7, only="values")


def test_global_random_state_is_put_back():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    check(article, only="keep_rate")
    assert torch.equal(torch.rand(3), expected)


def test_the_tiers_count_in_the_verdict():
    only = ["values", "strides_are_kept"]
    plain = check(on_torch.plain_where, only=only)
    assert plain.ok
    assert plain.count("deviates", "convention") == 1
    assert not check(on_torch.plain_where, only=only, strict=True).ok
    wrong = check(forgets_to_rescale, only=only)
    assert not wrong.ok
    assert wrong.count("deviates", "wrong") == 1
    assert "1 wrong, 1 convention" in wrong.headline


def test_what_breaks_at_an_edge_counts():
    report = check(torch.nn.Dropout, only=["values", "zeros_at_one"])
    assert report.count("deviates", "fragile") == 1
    assert not report.ok


def interrupts(x, p, rng):
    raise KeyboardInterrupt


def test_ctrl_c_in_the_subject_ends_the_check():
    with pytest.raises(KeyboardInterrupt):
        check(interrupts, only="values")


def test_an_expected_deviation_that_does_not_come_is_a_failure():
    reason = {"values": "it scales later"}
    assert check(forgets_to_rescale, only="values", expected=reason).ok
    report = check(on_torch.plain_where, only="values", expected=reason)
    assert not report.ok
    assert report.results[0].outcome == "unexpected"


def test_every_fact_is_one_line():
    report = check(article, only=EXACT)
    for result in report.results:
        assert "\n" not in result.fact
        assert len(result.fact) < 300
    assert len(str(report).splitlines()) < 90


def test_the_same_seed_gives_the_same_report_alone_and_in_company():
    alone = check(forgets_to_rescale, only="values").results[0].fact
    company = {r.clause.name: r.fact for r in check(forgets_to_rescale, only=EXACT[:20]).results}
    assert company["values"] == alone


@parametrize_with_clauses(
    functools.partial(forgets_to_rescale),
    "torch",
    only=["values", "identity_at_zero"],
    expected={"values": "on purpose"},
)
def test_one_test_per_clause(clause):
    clause()


def test_a_user_s_process_is_left_as_it_was():
    """Modes, generators, random state, the gradient mode, and what is logged."""
    layer = torch.nn.Sequential(on_torch.Layer(0.3).eval(), on_torch.LayerWithGenerator(0.3))
    layer.p = 0.3
    generator = layer[1].random
    state, disabled = generator.get_state(), logging.root.manager.disable
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with torch.no_grad():
        check(layer, "torch", only=["values", "keep_rate", "compiled_gives_the_same"])
        assert not torch.is_grad_enabled()
    parametrize_with_clauses(layer, "torch", only="values")
    assert torch.equal(torch.rand(3), expected)
    assert [part.training for part in layer] == [False, True]
    assert layer[1].random is generator
    assert torch.equal(generator.get_state(), state)
    assert logging.root.manager.disable == disabled


def test_a_layer_that_cannot_be_copied_keeps_its_mode():
    layer = on_torch.Layer(0.3).eval()
    layer.lock = threading.Lock()
    assert check(layer, only=["values", "keep_rate"]).ok
    assert not layer.training


def test_a_right_one_passes_where_gradients_are_off():
    only = ["gradient_is_that_of_the_mask", "recomputed_with_the_same_mask"]
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            assert check(on_torch.plain_where, only=only).ok


def stops(x, p):
    pytest.skip("in the subject")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"p": 1.5}, "must be in"),
        ({"p": "x"}, "must be a number"),
        ({"p": True}, "must be a number"),
        ({"seed": 1.5}, "whole number"),
        ({"seed": -1}, "not be negative"),
        ({"only": 5}, "only must be names"),
        ({"expected": ["values"]}, "expected must be a dict"),
        ({"expected": {"values": None}}, "expected must be a dict"),
    ],
)
def test_bad_arguments_are_told_so(arguments, says):
    with pytest.raises(CannotCheck, match=says):
        check(on_torch.Layer(0.3), **{"only": "values", **arguments})


def test_a_function_has_no_rate_of_its_own():
    with pytest.raises(CannotCheck, match="no p"):
        check(on_torch.plain_where, p=0.5, only="values")


def test_a_skip_in_the_subject_is_no_verdict():
    with pytest.raises(CannotCheck, match="Skipped"):
        check(stops, "numpy", only="values")


def test_what_applies_to_nothing_is_not_ok():
    report = check(on_torch.plain_where, only="raw_keys_are_keys")
    assert not report.ok
    assert report.headline.startswith("NOTHING CHECKED")


@pytest.mark.slow
@pytest.mark.parametrize("p", [1e-4, 0.999])
def test_rates_near_0_and_1_are_checked_in_seconds_and_pass(p: float):
    statistical = ["keep_rate", "neighbours_are_independent", "calls_are_independent"]
    report = check(on_torch.Layer(p), only=[*statistical, "values", "mode_comes_from_the_model"])
    assert report.ok, str(report)


class HasNoMessage(Exception):  # noqa: N818 - on purpose
    def __str__(self):
        raise RuntimeError("no message")


def has_no_message(x, p):
    raise HasNoMessage


class Unready:
    @property
    def p(self):
        raise ValueError("not built yet")

    def __call__(self, x):
        return np.where(np.random.random(x.shape) >= 0.5, 2 * x, 0)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (has_no_message, "cannot be read"),
        (Unready(), "not built yet"),
        (on_torch.Layer.__new__(on_torch.Layer), "cannot tell the rate"),
    ],
)
def test_hostile_subjects_get_one_line(what, says):
    if isinstance(what, torch.nn.Module):
        torch.nn.Module.__init__(what)
    with pytest.raises(CannotCheck, match=says):
        check(what, "torch" if isinstance(what, torch.nn.Module) else "numpy", only="values")


def test_a_layer_s_own_rate_has_to_be_a_rate():
    layer = on_torch.Layer(0.3)
    layer.rate = layer.p = 5.0
    with pytest.raises(CannotCheck, match=r"not in \[0, 1\]"):
        check(layer, only="values")


def test_the_framework_of_an_instance_is_guessed_from_its_class():
    instance = type("Plain", (), {"rate": 0.3, "__call__": lambda self, x: np.asarray(x)})()
    assert subject(instance).framework == "numpy"


def test_randomness_that_nobody_can_set_is_not_called_wrong():
    report = check(on_torch.LayerAroundLayer, only=["values", "same_mask_for_the_same_source"])
    assert [result.outcome for result in report.results] == ["passed", "not applicable"]
    assert "cannot be set" in report.results[1].fact
