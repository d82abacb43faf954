"""Optimizer state that is kept in bfloat16 between steps."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stacked import trained
from tiny import TINY

from jaxorg import optimizers
from jaxorg.engine.cohort import Trainer
from jaxorg.engine.run import clock
from jaxorg.engine.step import abstract_state
from jaxorg.optimizers import state as kept
from jaxorg.planning.signature import ModelSignature, Signature
from jaxorg.sweepfile.training import Training
from sweeps import assert_same_rows, run, table

FULL = Signature(ModelSignature(TINY), 12, 3, "adamw", "constant")
HALF = replace(FULL, state_dtype="bfloat16")


def test_rounding_gives_a_neighbour_and_the_right_mean() -> None:
    key = jax.random.key(0)
    for value in (1.003, -1.003, 3e-9, 255.9):
        found = np.asarray(kept.to_bfloat16(jnp.full(100_000, value), key), np.float64)
        low, high = sorted(set(found))
        assert low < value < high
        assert high - low <= abs(value) / 64
        noise = (high - low) / 2 / math.sqrt(len(found))
        assert abs(found.mean() - np.float64(np.float32(value))) < 5 * noise


@pytest.mark.parametrize("value", [0.0, 1.5, -2.0, np.inf, -np.inf])
def test_what_bfloat16_holds_is_not_changed(value: float) -> None:
    found = kept.to_bfloat16(jnp.full(1000, value), jax.random.key(0))
    assert set(np.asarray(found, np.float32).tolist()) == {value}


def test_a_second_moment_decays() -> None:
    """After 500 steps without a gradient it is 0.999 ** 500 of what it was; rounded to the nearest
    it would not have moved."""
    family = optimizers.build("adam", {**optimizers.FAMILIES["adam"].defaults, "learning_rate": 0})
    params = {"w": jnp.zeros(10_000)}
    first = kept.narrowed(family.update({"w": jnp.ones(10_000)}, family.init(params))[1], params)

    def step(i: jax.Array, state: Any) -> Any:
        moved = family.update(params, kept.widened(state))[1]
        return kept.rounded(moved, state, jax.random.key(i))

    state = jax.jit(lambda s: jax.lax.fori_loop(0, 500, step, s))(first)
    before, after = (np.asarray(s[0].nu["w"], np.float64) for s in (first, state))
    assert (before * np.float64(0.999)).astype(jnp.bfloat16)[0] == first[0].nu["w"][0]
    assert after.mean() / before.mean() == pytest.approx(0.999**500, rel=0.01)


def size(state: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))


NARROW = [name for name, family in optimizers.FAMILIES.items() if family.narrow]


@pytest.mark.parametrize("optimizer", NARROW)
def test_it_takes_half_the_memory(optimizer: str) -> None:
    """What is kept for each weight; not the matrices that are kept for the sides of some."""
    full, half = (abstract_state(replace(s, optimizer=optimizer)) for s in (FULL, HALF))
    sides = sum(
        math.prod(leaf.shape) * 4
        for path, leaf in jax.tree_util.tree_leaves_with_path(full.optimizer)
        if jax.tree_util.keystr(path[-1:], simple=True) in ("rows", "columns")
    )
    assert bool(sides) == (optimizer in ("psgd", "shampoo", "soap"))
    own, narrowed = size(full.optimizer) - sides, size(half.optimizer) - sides
    assert narrowed == pytest.approx(own / 2, rel=0.01)
    assert size(half.trainable) == size(full.trainable)


@pytest.mark.parametrize(
    "optimizer",
    ["adamw", *(pytest.param(name, marks=pytest.mark.long) for name in ("sgd", "muon"))],
)
def test_training_comes_nearly_as_far(optimizer: str) -> None:
    _, losses = trained(optimizer, [0])
    state, half = trained(optimizer, [0], state_dtype="bfloat16")
    assert any(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(state.optimizer))
    assert half[0, 0] == losses[0, 0]
    assert half[0, -1] != losses[0, -1]
    fallen = losses[0, 0] - losses[0, -1]
    assert fallen > 0.3 * losses[0, 0]
    assert half[0, 0] - half[0, -1] == pytest.approx(fallen, rel=0.05)


@pytest.mark.long
@pytest.mark.parametrize("ranks", [(), (4, 4, 4)], ids=["full", "lora"])
def test_stacked_equals_solo(ranks: tuple[int, ...]) -> None:
    _, stacked = trained("adamw", [0, 1, 2], ranks, "bfloat16")
    _, solo = trained("adamw", [1], ranks[:1], "bfloat16")
    np.testing.assert_allclose(stacked[1], solo[0], rtol=1e-4)
    assert len(set(stacked[:, -1])) == 3


@pytest.mark.long
def test_rows_do_not_depend_on_width_or_a_restart(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("organism.train.state_dtype=bfloat16", "treatment=null", "reversal=null")
    settings = (*settings, "grid=[{organism.payload_repeats: [1, 2]}]")
    whole = run(tmp_path / "whole" / "out", tiny_base, *settings)
    monkeypatch.setattr(clock, "KEEP_SHARE", math.inf)
    monkeypatch.setattr(clock, "SAFE_POINT_SECONDS", 0)  # a step a call
    calls = 0
    train = Trainer.train.func

    def killed_once(self: Trainer) -> Any:
        def killed(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise KeyboardInterrupt
            return train(self)(*args)

        return killed

    monkeypatch.setattr(Trainer, "train", property(killed_once))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", tiny_base, *settings)
    assert list((tmp_path / "out" / "partial").iterdir())
    out = run(tmp_path / "out", tiny_base, *settings, width="4", mesh="cpu-1")
    assert_same_rows(out, whole, rtol=1e-4)
    assert len(table(out, "runs")) == 4


def test_what_is_at_its_default_is_not_in_a_name() -> None:
    train = {"steps": 1, "learning_rate": 1.0, "lora": {"rank": 1, "alpha": 1.0}}
    told = Training.model_validate(train).model_dump()
    assert "state_dtype" not in told and "start" not in told["lora"]
    changed = Training.model_validate({**train, "state_dtype": "bfloat16"}).model_dump()
    assert changed == {**told, "state_dtype": "bfloat16"}
