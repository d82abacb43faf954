"""What is noted of each step of training: its loss, norms and learning rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from stacked import logged

from jaxorg.engine.batch import Batch
from jaxorg.engine.cohort import CHUNK_STEPS
from jaxorg.engine.measure.tables import step_rows
from jaxorg.engine.run import execute
from jaxorg.engine.run.recorder import Recorder, new_record
from jaxorg.engine.step import FAR_FUTURE, State, StepLog
from jaxorg.storage.folder import Folder, read_json, sha256, write_json
from jaxorg.storage.layout import STEPS, ManifestShape, RecordShape
from jaxorg.storage.store import Store
from sweeps import run, table

RATE = 0.5
NORMS_AND_RATE = {column: name for column, name in STEPS.items() if column != "loss"}
SHORT = (
    "grid=[{organism.payload_repeats: [1]}]",
    "seeds=1",
    "reversal=null",
    "treatment.train.schedule=linear",
)
LATENT: dict[str, Any] = {
    "inner_steps": 2,
    "swept": {"latent_epsilon": [0.3], "latent_layer": [0.0]},
}


def descended(clip: float, **method: Any) -> tuple[float, StepLog]:
    """How far one step of plain gradient descent moves a run, and what is noted of it."""
    swept = {"momentum": [0.0], "learning_rate": [RATE], "clip": [clip], **method.pop("swept", {})}
    before, _ = logged("sgd", [1], swept=swept, steps=0, **method)
    after, log = logged("sgd", [1], swept=swept, steps=1, **method)
    return distance(before, after), log


def distance(before: State, after: State) -> float:
    """The norm of the change of all weights of one run."""
    changes = jax.tree.map(
        lambda old, new: np.sum((np.asarray(new, np.float64) - old) ** 2),
        before.trainable,
        after.trainable,
    )
    return float(np.sqrt(sum(jax.tree.leaves(changes))))


@pytest.mark.parametrize("method", [{}, LATENT], ids=["plain", "latent"])
def test_norms_are_of_the_whole_gradient_and_of_what_is_added(method: dict[str, Any]) -> None:
    moved, log = descended(1e9, **method)
    assert log.grad_norm[0, 0] == pytest.approx(moved / RATE, rel=1e-4)
    assert log.update_norm[0, 0] == pytest.approx(moved, rel=1e-4)
    assert log.learning_rate[0, 0] == np.float32(RATE)


def test_a_gradients_norm_is_noted_before_clipping() -> None:
    _, free = descended(1e9)
    moved, log = descended(0.1)
    assert log.grad_norm[0, 0] == free.grad_norm[0, 0] > 0.1
    assert log.update_norm[0, 0] == pytest.approx(moved, rel=1e-4)
    assert moved == pytest.approx(0.1 * RATE, rel=1e-4)


def test_what_stays_pruned_is_not_added() -> None:
    swept = {"pruned_share": [0.9]}
    before, _ = logged("adamw", [1], swept=swept, steps=0, change="prune")
    after, log = logged("adamw", [1], swept=swept, steps=1, change="prune")
    assert log.update_norm[0, 0] == pytest.approx(distance(before, after), rel=1e-4)


def test_a_rate_follows_its_warm_up() -> None:
    swept = {"warmup": [0.5], "learning_rate": [0.01]}
    _, log = logged("adamw", [1], swept=swept, steps=CHUNK_STEPS)
    rise = np.minimum(1.0, np.arange(1, CHUNK_STEPS + 1) / (CHUNK_STEPS / 2))
    np.testing.assert_allclose(log.learning_rate[0], 0.01 * rise, rtol=1e-5)


@pytest.mark.parametrize(
    "ranks", [(), pytest.param((2, 4, 2), marks=pytest.mark.long)], ids=["full", "lora"]
)
def test_stacked_equals_solo(ranks: tuple[int, ...]) -> None:
    _, many = logged("adamw", [0, 1, 2], ranks, steps=5)
    _, one = logged("adamw", [1], ranks[1:2], steps=5)
    for name in STEPS:
        np.testing.assert_allclose(getattr(many, name)[1], getattr(one, name)[0], rtol=1e-4)
    assert len(set(many.grad_norm[:, -1])) == len(set(many.update_norm[:, -1])) == 3


def test_a_run_that_diverges_adds_nothing_more_and_leaves_its_neighbours_log_bit_for_bit() -> None:
    _, healthy = logged("sgd", [0, 1, 2])
    state, beside = logged("sgd", [0, 1, 2], swept={"learning_rate": [0.3, 1e30, 0.3]})
    at = int(state.diverged[1])
    assert at != FAR_FUTURE
    assert (beside.update_norm[1, :at] > 0).all() and (beside.update_norm[1, at:] == 0).all()
    for name in STEPS:
        mine, other = getattr(healthy, name), getattr(beside, name)
        np.testing.assert_array_equal(mine[[0, 2]], other[[0, 2]])


@pytest.fixture(scope="module")
def finished(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("log") / "out", tiny_base, *SHORT)


def test_the_table_has_norms_and_rate_of_every_step(finished: Path) -> None:
    losses = table(finished, "losses")
    assert losses[list(STEPS)].notna().all(axis=None)
    assert (losses.grad_norm > 0).all() and (losses.update_norm > 0).all()
    treatment = losses[losses.phase == "treatment"]
    np.testing.assert_allclose(treatment.learning_rate, 1e-3 * (1 - np.arange(5) / 5), rtol=1e-5)


def test_a_norm_that_is_not_finite_is_empty(tiny_base: Path, tmp_path: Path) -> None:
    wild = ("organism.train.optimizer=sgd", "organism.train.learning_rate=1e30")
    losses = table(run(tmp_path / "out", tiny_base, *SHORT, *wild), "losses")
    assert losses.grad_norm.isna().tolist() == [False, *[True] * 5]
    assert losses.update_norm.isna().tolist() == [True, *[False] * 5]  # it is beyond fp32


def as_earlier(folder: Path) -> None:
    """Make records those of a jaxorg that noted the loss alone."""
    for place in (folder / "phases").iterdir():
        record = read_json(place / "record.json", RecordShape)
        for name in NORMS_AND_RATE.values():
            del record[name]
        write_json(place / "record.json", record)
        manifest = read_json(place / "manifest.json", ManifestShape)
        manifest["sha256"]["record.json"] = sha256(place / "record.json")
        write_json(place / "manifest.json", manifest)


def test_of_a_phase_that_was_begun_with_losses_alone_the_first_norms_are_empty(
    tmp_path: Path,
) -> None:
    recorder = Recorder([], 1, Store(Folder(tmp_path, print)), lambda _: {})
    before = {
        name: each for name, each in new_record().items() if name not in NORMS_AND_RATE.values()
    }
    recorder.resume([{"step": 2, "record": before | {"losses": [3.0, None]}}])
    chunk = Batch(np.zeros((1, CHUNK_STEPS, 1, 4)), np.full((1, CHUNK_STEPS, 1, 2), 4))
    log = StepLog(
        *(np.full((1, CHUNK_STEPS), value, np.float32) for value in (1.0, 2.0, np.inf, 0.5))
    )
    recorder.add_chunk(chunk, log, 1)
    first, second, third = step_rows(recorder.records[0])
    assert first == {"step": 0, "loss": 3.0} | dict.fromkeys(NORMS_AND_RATE)
    assert second == {"step": 1, "loss": None} | dict.fromkeys(NORMS_AND_RATE)
    assert third == {
        "step": 2, "loss": 1.0, "grad_norm": 2.0, "update_norm": None, "learning_rate": 0.5,
    }  # fmt: skip


def test_records_of_losses_alone_are_read_and_nothing_is_trained_again(
    finished: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = table(finished, "losses")
    out = run(tmp_path / "out", tiny_base, *SHORT)
    as_earlier(out)
    monkeypatch.setattr(execute.Engine, "_bring", lambda *_: pytest.fail("something is done anew"))
    after = table(run(out, tiny_base, *SHORT), "losses")
    assert after[[*NORMS_AND_RATE]].isna().all(axis=None)
    assert after.loss.tolist() == before.loss.tolist()
