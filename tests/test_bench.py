"""The benchmark times what it says: the same training on both sides."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxorg import bench as command
from jaxorg.cli import bench
from jaxorg.cli.bench import (
    AGREEMENT,
    BATCH,
    LENGTH,
    Eager,
    Rows,
    Stacked,
    compare,
    gain,
    make_work,
)
from jaxorg.cli.pretrain import JAXORG_1M
from jaxorg.data.cache import DatasetCache
from jaxorg.engine.run.inputs import Inputs
from jaxorg.errors import Refusal
from jaxorg.planning.plan import make_plan
from jaxorg.storage.folder import Folder
from jaxorg.sweepfile import spec
from sweeps import write

TINY = replace(
    JAXORG_1M,
    vocab_size=23,
    hidden_size=8,
    intermediate_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=4,
)


@pytest.fixture(scope="module")
def ours() -> Stacked:
    return Stacked(make_work(TINY, runs=4, steps=3))


def test_every_round_trains_every_run_from_its_first_weights(ours: Stacked) -> None:
    first, again = ours.train(), ours.train()
    assert first.losses.shape == (4, 3)
    np.testing.assert_array_equal(first.losses, again.losses)
    np.testing.assert_allclose(first.losses, np.log(TINY.vocab_size), rtol=0.05)
    assert len(np.unique(first.losses)) == 12
    assert first.seconds > 0


def test_speed_is_trained_tokens_a_second(ours: Stacked, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = ours.train()._replace(seconds=0.5)
    monkeypatch.setattr(ours, "train", lambda: taken)
    work = make_work(TINY, runs=4, steps=3)
    assert compare([ours], work, rounds=2) == {"jaxorg": [4 * 3 * BATCH * LENGTH / 0.5] * 2}


@pytest.mark.filterwarnings("ignore")  # whatever torch and Transformers say while being imported
def test_both_sides_train_alike() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    work = make_work(TINY, runs=2, steps=8)
    found, expected = (side(work).train().losses for side in (Stacked, Eager))
    np.testing.assert_allclose(found[:, 0], expected[:, 0], rtol=0, atol=AGREEMENT)
    np.testing.assert_allclose(found, expected, rtol=0, atol=10 * AGREEMENT)


def test_sides_that_train_different_models_are_refused(ours: Stacked) -> None:
    work = make_work(TINY, runs=4, steps=3)
    changed = {**work.weights, "embedding": 2 * work.weights["embedding"]}
    with pytest.raises(Refusal, match="first losses differ"):
        compare([ours, Stacked(replace(work, weights=changed))], work, rounds=1)


def test_without_the_parity_extra_the_command_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Refusal, match=r"'\.\[parity\]'"):
        command.bench()


def test_runs_that_do_not_fill_the_devices_are_refused() -> None:
    with pytest.raises(Refusal, match="--runs: 3"):
        Stacked(make_work(TINY, runs=3, steps=1))


def test_packing_is_measured_of_adapters_over_a_base_that_all_runs_share(
    tiny_base: Path, tmp_path: Path
) -> None:
    settings = ["organism.train.lora={rank: 2, alpha: 4}"]
    plan = make_plan(spec.load(str(write(tmp_path / "out", tiny_base)), "laptop", settings))
    inputs = Inputs(plan, DatasetCache(Folder(tmp_path / "datasets", print)))
    trained = next(cohort for cohort in plan.cohorts if cohort.signature)
    assert trained.model.shared_frozen
    assert Rows(plan, inputs, packing=True, steps=2).train() > 0


@pytest.mark.long
def test_packing_leaves_less_padding_and_every_speed_is_of_its_own_tokens(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(spec.load(str(write(tmp_path / "out", tiny_base)), "laptop"))
    inputs = Inputs(plan, DatasetCache(Folder(tmp_path / "datasets", print)))
    apart, packed = (Rows(plan, inputs, packing, steps=3) for packing in (False, True))
    assert 0 <= packed.padding < 0.35 < apart.padding < 1
    clock = iter([0.0, 2.0, 0.0, 2.0])
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(clock))
    speeds = [side.train() for side in (apart, packed)]
    assert speeds[1] > 1.4 * speeds[0]  # as many rows in as long, with more in them


def test_a_sweep_that_trains_nothing_has_nothing_to_pack(tiny_base: Path, tmp_path: Path) -> None:
    settings = [f"{phase}.train.steps=0" for phase in ("organism", "treatment", "reversal")]
    with pytest.raises(Refusal, match="--packing: .* trains nothing"):
        gain(str(write(tmp_path / "out", tiny_base)), settings, steps=1, rounds=1)
