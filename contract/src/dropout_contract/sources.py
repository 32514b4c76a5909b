"""The clauses about randomness as the caller sees it: sources, seeds, keys, calls and threads."""

import concurrent.futures
import os
import pickle
import subprocess
import sys
from typing import Any

import numpy as np

from dropout_contract.budget import Deviation
from dropout_contract.run import (
    CONVENTION,
    FRAGILE,
    UNITS,
    WRONG,
    NotApplicable,
    Run,
    clause,
    require,
    same,
)
from dropout_contract.subjects import Raised


@clause(WRONG)
def mask_does_not_depend_on_the_input(run: Run) -> None:
    """The same randomness gives the same mask for every x of the shape: large, small, negative."""
    (p,) = run.rates(0.5)
    seed = run.new_seed()
    kept = run.keep((256,), p, seed=seed)
    for scale in (1e-30, 1e30, -1.0):
        out = run(np.full(256, scale), p, seed=seed)
        same(out != 0, kept, f"the mask for x = {scale:g} beside that for x = 1")


@clause(WRONG)
def same_mask_for_the_same_source(run: Run) -> None:
    """The mask is a function of the source, the shape and p: earlier calls do not matter."""
    (p,) = run.rates(0.5)
    seed = run.new_seed()
    first = run.keep((UNITS,), p, seed=seed)
    for before in (64, 7, UNITS):
        run.keep((before,), p)
        same(run.keep((UNITS,), p, seed=seed), first, "the mask of the same seed, seen again")


@clause(WRONG)
def a_source_put_back_repeats_itself(run: Run) -> None:
    """A generator that is put back to an earlier state, or seeded again, gives the mask again."""
    run.needs_state()
    run.needs_replay()
    (p,) = run.rates(0.5)
    seed = run.new_seed()
    source = run.subject.source(seed)
    fresh = run.backend.states(source)
    first = run.keep_with((999,), p, source)
    if run.backend.states(source) == fresh:
        raise NotApplicable("a call does not change the state of the source")
    for before, units in ((5, 20), (5, 60), (7, 999), (999, 999)):
        run.keep_with((before,), p, source)
        state = run.backend.saved(source)
        expected = run.keep_with((units,), p, source)
        run.backend.put_back(source, state)
        seen = run.keep_with((units,), p, source)
        same(seen, expected, "the mask from a source put back to an earlier state")
    if run.backend.seed_again(source, seed):
        same(run.keep_with((999,), p, source), first, "the mask from a generator seeded again")


@clause(WRONG)
def every_bit_of_the_source_counts(run: Run) -> None:
    """A seed or key with one bit changed gives another mask."""
    run.needs_replay()
    (p,) = run.rates(0.5)
    bits = run.backend.bits if run.subject.takes_source else 32
    number = run.new_seed() if bits == 32 else run.new_seed() << 32 | run.new_seed()
    masks: dict[bytes, str] = {}
    for bit in range(-1, bits):
        source = run.subject.source_of_bits(number ^ (1 << bit) if bit >= 0 else number)
        name = f"with bit {bit} changed" if bit >= 0 else "as it was"
        mask = run.keep_with((run.units(p),), p, source).tobytes()
        first = masks.get(mask)
        require(first is None, f"the seed {name} has the mask of the seed {first}")
        masks[mask] = name
    if run.backend.name == "jax" and run.subject.must_refuse:
        _keys_of_four_words(run, p)


def _keys_of_four_words(run: Run, p: float) -> None:
    """Check the same for each word of a key of the kind "rbg", if it takes such a key."""
    jax: Any = run.backend
    words = np.array([run.new_seed() for _ in range(4)], np.uint32)
    masks = set()
    for changed in ([0, 0, 0, 0], *(1 << 7) * np.eye(4, dtype=np.uint32)):
        key = jax.key(words ^ np.array(changed, np.uint32), "rbg")
        try:
            masks.add(run.keep_with((run.units(p),), p, {"key": key}).tobytes())
        except Raised:
            return
    require(len(masks) == 5, "a word of a key of the kind rbg does not count")


@clause(WRONG)
def result_is_not_overwritten(run: Run) -> None:
    """A result is not overwritten by later calls, of the same shape or another, in any mode."""
    (p,) = run.rates(0.5)
    shapes = [(64,), (64,), (8, 8), (64,), (32,), (64,)]
    kept: list[tuple[Any, np.ndarray]] = []
    for training in (True, False) if run.subject.has_evaluation else (True,):
        for shape in shapes:
            x = run.backend.array(run.numbers(*shape))
            out = run.subject(x, p, training=training, seed=run.new_seed())
            kept.append((out, run.backend.numpy(out).copy()))
    for number, (out, copy) in enumerate(kept, 1):
        same(run.backend.numpy(out), copy, f"result {number} of {len(kept)}, after all calls")


@clause(WRONG)
def global_random_state_is_left_alone(run: Run) -> None:
    """A dropout that is given its source neither reads nor writes global random state."""
    if not run.subject.takes_source:
        raise NotApplicable("it draws from the global generator, and has no argument for another")
    (p,) = run.rates(0.5)
    backend, seed, masks = run.backend, run.new_seed(), []
    for global_seed in (1, 2):
        backend.seed_globally(global_seed)
        before = backend.global_state()
        out = run.subject.call(backend.array(np.ones(4096)), p, **run.subject.source(seed))
        require(backend.global_state() == before, "global random state was changed")
        masks.append(backend.numpy(out) != 0)
    same(masks[1], masks[0], "the mask depends on global random state: units kept")


@clause(CONVENTION)
def off_draws_nothing(run: Run) -> None:
    """In evaluation, at p = 0 and at p = 1, no source is needed, and none is used."""
    if run.subject.seeded_by_number:
        raise NotApplicable("it is seeded by a whole number, which has no state")
    run.needs_evaluation()
    backend = run.backend
    cases: list[tuple[float, bool]] = [(run.subject.p or 0.5, False)]
    if run.subject.p is None:
        cases += [(0.0, True), (1.0, True)]
    x = backend.array(run.numbers(64))
    for p, training in cases:
        where = "evaluation" if not training else f"training at p = {p:g}"
        source = run.subject.source(run.new_seed())
        before = backend.states(source)
        run.subject.call(x, p, training=training, **source)
        after = backend.states(source)
        require(before == after, f"random numbers were drawn in {where}")
        try:
            run.subject.call(x, p, training=training)
        except Raised as error:
            raise Deviation(f"without a source, in {where}: {error}") from error


@clause(CONVENTION)
def missing_source_is_refused(run: Run) -> None:
    """Training without the source that it needs is an error whose message names the argument."""
    if not run.subject.must_refuse:
        raise NotApplicable("nobody has to pass it a source")
    (p,) = run.rates(0.5)
    name = run.subject.source_argument
    try:
        run.subject.call(run.backend.array(np.ones(4)), p)
    except Raised as error:
        require(name in str(error), f"the message does not name {name}: {error}")
    else:
        require(False, f"no error without {name}")


@clause(FRAGILE)
def raw_keys_are_keys(run: Run) -> None:
    """A key as two whole numbers, jax.random.PRNGKey, gives the mask of the same typed key."""
    if run.backend.name != "jax":
        raise NotApplicable("only JAX has keys")
    import jax

    run.needs_replay()
    (p,) = run.rates(0.5)
    for _ in range(4):
        key = run.backend.source(run.new_seed())
        try:
            raw = run.keep_with((UNITS,), p, {"key": jax.random.key_data(key)})
        except Raised as error:
            raise NotApplicable(f"it takes no raw key: {error}") from error
        same(raw, run.keep_with((UNITS,), p, {"key": key}), "the mask of a raw key")


@clause(FRAGILE)
def threads_do_not_mix(run: Run) -> None:
    """Calls from several threads at once, each with its own source, give what calls in turn give.

    Whether threads meet is chance. A buffer that they share was found in 120 of 120 runs.
    """
    if not run.subject.must_refuse:
        raise NotApplicable("its calls share a source")
    if run.backend.name == "jax":
        raise NotApplicable("arrays of JAX are never written to")
    (p,) = run.rates(0.5)
    x = run.backend.array(run.numbers(2**17))
    seeds = [run.new_seed() for _ in range(64)]

    def call(seed: int) -> np.ndarray:
        return run.backend.numpy(run.subject(x, p, seed=seed)).copy()

    in_turn = [call(seed) for seed in seeds]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for _ in range(6):
                for one, other in zip(pool.map(call, seeds), in_turn, strict=True):
                    same(one, other, "a result in one of 8 threads")
    finally:
        sys.setswitchinterval(interval)


@clause(FRAGILE)
def number_of_threads_does_not_matter(run: Run) -> None:
    """In PyTorch, the mask is the same with one thread and with two."""
    if run.backend.name != "torch":
        raise NotApplicable("only PyTorch has a number of threads to set")
    torch = run.backend.xp
    (p,) = run.rates(0.5)
    seed, before = run.new_seed(), torch.get_num_threads()
    masks = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            masks.append(run.keep((2**17,), p, seed=seed))
    finally:
        torch.set_num_threads(before)
    same(masks[1], masks[0], "the mask with two threads")


IN_ANOTHER_PROCESS = """
import pickle, sys
import numpy as np
path, what, framework, rate, p, seed = pickle.load(sys.stdin.buffer)
sys.path[:] = path
from dropout_contract.run import Run
from dropout_contract.subjects import subject
run = Run(subject(pickle.loads(what), framework, p=rate))
sys.stdout.buffer.write(b"mask:" + np.packbits(run.keep((16384,), p, seed=seed)).tobytes())
"""


@clause(FRAGILE)
def same_mask_in_another_process(run: Run) -> None:
    """The same source gives the same mask in another process, where Python hashes differently."""
    (p,) = run.rates(0.5)
    seed = run.new_seed()
    origin = run.subject.origin
    # What is defined in the file that is being run has another name there.
    if origin is None or getattr(origin, "__module__", "") == "__main__":
        raise NotApplicable("another process cannot import it")
    try:
        what = pickle.dumps(origin)
    except Exception as error:
        raise NotApplicable("another process cannot import it") from error
    given = (sys.path, what, run.subject.framework, run.subject.p, p, seed)
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_ANOTHER_PROCESS],
        input=pickle.dumps(given), capture_output=True, timeout=120,
        env={**os.environ, "PYTHONHASHSEED": "1" if "PYTHONHASHSEED" not in os.environ else "2"},
    )  # fmt: skip
    _, found, mask = child.stdout.rpartition(b"mask:")
    if not found:
        raise NotApplicable("another process cannot import it")
    expected = np.packbits(run.keep((UNITS,), p, seed=seed)).tobytes()
    require(mask == expected, "the mask of the same seed in another process is another")
