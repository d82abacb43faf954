"""Learning-rate schedules, warm-up and clipping, by value at the first, middle and last steps."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stacked import BATCH, LENGTH, trainer_of
from tiny import TINY

from jaxorg.engine.batch import Batch
from jaxorg.engine.cohort import CHUNK_STEPS
from jaxorg.engine.step import schedule
from jaxorg.planning.signature import ModelSignature, Signature

TOTAL = 10
LAST_COSINE = 0.5 * (1 + math.cos(math.pi * 5 / 6))
# Schedule and warm-up; then the share of the peak rate at some of the 10 steps.
SHARES: list[tuple[str, float, dict[int, float]]] = [
    ("constant", 0.0, {0: 1, 5: 1, 9: 1}),
    ("constant", 0.4, {0: 0.25, 1: 0.5, 3: 1, 4: 1, 9: 1}),
    ("constant", 1.0, {0: 0.1, 4: 0.5, 9: 1}),
    ("linear", 0.0, {0: 1, 5: 0.5, 9: 0.1}),
    ("linear", 0.4, {0: 0.25, 3: 1, 4: 1, 7: 0.5, 9: 1 / 6}),
    ("linear", 1.0, {0: 0.1, 4: 0.5, 9: 1}),
    ("cosine", 0.0, {0: 1, 5: 0.5, 9: 0.5 * (1 + math.cos(0.9 * math.pi))}),
    ("cosine", 0.4, {0: 0.25, 3: 1, 4: 1, 7: 0.5, 9: LAST_COSINE}),
    ("cosine", 0.05, {0: 1, 9: 0.5 * (1 + math.cos(math.pi * 8.5 / 9.5))}),
]


def signature(shape: str) -> Signature:
    return Signature(ModelSignature(TINY), LENGTH, BATCH, "sgd", shape)


@pytest.mark.parametrize(("shape", "warmup", "shares"), SHARES)
def test_a_schedule_is_its_share_of_the_peak_at_each_step(
    shape: str, warmup: float, shares: dict[int, float]
) -> None:
    found = {
        step: float(
            schedule(signature(shape), jnp.float32(warmup), jnp.int32(step), jnp.int32(TOTAL))
        )
        for step in shares
    }
    assert found == pytest.approx(shares, rel=1e-6)


def test_a_phase_of_one_step_takes_it_at_the_peak() -> None:
    for shape in ("constant", "linear", "cosine"):
        one = schedule(signature(shape), jnp.float32(0.5), jnp.int32(0), jnp.int32(1))
        assert float(one) == 1


def moved(shape: str, step: int, warmups: list[float], clips: list[float]) -> np.ndarray:
    """How far plain gradient descent at rate 0.5 moves runs, alike but for warm-up and clipping, in
    one step of ten: norms of the change of all weights [run]."""
    runs = len(warmups)
    trainer = trainer_of(signature(shape), runs)
    swept = {
        "momentum": [0.0] * runs,
        "learning_rate": [0.5] * runs,
        "warmup": warmups,
        "clip": clips,
    }
    hyper = trainer.place({name: np.array(values, np.float32) for name, values in swept.items()})
    keys = trainer.place(jax.vmap(jax.random.key)(np.zeros(runs, int)))
    state, frozen = trainer.begin(keys, hyper, trainer.initialise(keys))
    before = jax.device_get(state.trainable)
    rows = np.random.default_rng(0).integers(0, TINY.vocab_size, (BATCH, LENGTH), np.int32)
    tokens = np.broadcast_to(rows, (runs, CHUNK_STEPS, BATCH, LENGTH))
    spans = np.broadcast_to(np.array([4, LENGTH], np.int32), (runs, CHUNK_STEPS, BATCH, 2))
    batch = trainer.place(Batch(tokens, spans))
    after, _ = trainer.train(frozen, hyper, state, batch, step, 1, TOTAL)
    changes = jax.tree.map(
        lambda old, new: ((np.asarray(new, np.float64) - old) ** 2).reshape(runs, -1).sum(axis=1),
        before,
        jax.device_get(after.trainable),
    )
    return np.sqrt(sum(jax.tree.leaves(changes)))


@pytest.mark.parametrize("step", [0, 7, 9])
def test_a_step_is_as_long_as_rate_schedule_and_clip_say(step: int) -> None:
    """A gradient above `clip` is cut to it, so that a step is rate x share x clip long."""
    shares = {shape: at[step] for shape, warmup, at in SHARES if warmup == 0.4 and step in at}
    for shape in ("linear", "cosine"):
        clips = [0.01, 0.02, 0.03]
        found = moved(shape, step, [0.4] * 3, clips)
        assert found == pytest.approx([0.5 * shares[shape] * clip for clip in clips], rel=1e-3)


def test_a_gradient_below_the_clip_is_left_as_it_is() -> None:
    free, loose, tight = moved("linear", 0, [0.0] * 3, [math.inf, 1e6, 0.01])
    assert free == loose > tight
    norm = 2 * free  # at rate 0.5
    over, under, _ = moved("linear", 0, [0.0] * 3, [1.01 * norm, 0.99 * norm, 1.0])
    assert (over, under) == pytest.approx((free, 0.99 * free), rel=1e-6)
