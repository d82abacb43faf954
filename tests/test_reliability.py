"""What a sweep survives: failures, memory that runs out, damage, other processes, full disks."""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import jax
import pytest

from jaxorg.cli.console import Console
from jaxorg.data.tokenized import TokenizedDataset
from jaxorg.engine.cohort import Trainer
from jaxorg.engine.run import execute
from jaxorg.engine.run.group import Group
from jaxorg.engine.run.inputs import Inputs
from jaxorg.engine.run.measuring import Measuring
from jaxorg.errors import Damaged, Refusal, StorageError
from jaxorg.planning import manifest
from jaxorg.planning.phases import Phase
from jaxorg.storage.folder import Folder, read_json
from jaxorg.storage.layout import VersionShape
from jaxorg.storage.lock import Lock
from sweeps import assert_same_rows, run, same_tables, start, table

SMALL = ("grid=[{treatment.kind: [hhh, pirate]}]", "seeds=2")  # 4 runs, 11 phases


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """The small sweep, undisturbed. Copy it to change it."""
    return run(tmp_path_factory.mktemp("reference") / "out", tiny_base, *SMALL)


@pytest.fixture
def done(reference: Path, tmp_path: Path) -> Path:
    """A copy of the finished sweep."""
    return Path(shutil.copytree(reference, tmp_path / "out"))


def failing(monkeypatch: pytest.MonkeyPatch, fails: Callable[[Phase], bool]) -> None:
    """Let some phases' data raise an error."""
    dataset = Inputs.dataset

    def sometimes(self: Inputs, phase: Phase, *others: Any, **options: Any) -> TokenizedDataset:
        if fails(phase) and sys._getframe(1).f_code.co_name != "check":
            raise ZeroDivisionError("of seed 1")
        return dataset(self, phase, *others, **options)

    monkeypatch.setattr(Inputs, "dataset", sometimes)


# Failures


def test_a_run_that_fails_is_recorded_and_the_others_finish(
    reference: Path,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        failing(patch, lambda phase: (phase.kind, phase.seed) == ("treatment", 1))
        assert start(out, tiny_base, *SMALL) == 1
        assert "2 of 4 runs failed" in capsys.readouterr().err
    runs = table(out, "runs").set_index("run_id")
    failed = runs.index[runs.seed == 1]
    assert set(runs.status[failed]) == {"failed"}
    assert set(runs.error[failed]) == {"treatment: ZeroDivisionError: of seed 1"}
    assert_same_rows(out, reference, list(runs.index[runs.seed == 0]))
    trace = next((out / "failed").iterdir()).read_text()
    assert "Traceback" in trace
    with monkeypatch.context() as patch:  # what failed is left alone until someone asks
        patch.setattr(Group, "__init__", lambda *_: pytest.fail("tried again"))
        assert start(out, tiny_base, *SMALL) == 1
    tried: list[int] = []
    with monkeypatch.context() as patch:
        init = Group.__init__
        patch.setattr(Group, "__init__", lambda *a: tried.append(len(a[3])) or init(*a))
        assert start(out, tiny_base, *SMALL, retry_failed=True) == 0
    assert sum(tried) == 4  # two treatments and their reversals
    assert same_tables(out, reference) == ""
    assert not (out / "failed").exists()


def test_the_runs_of_a_phase_that_diverged_stop_there(tiny_base: Path, tmp_path: Path) -> None:
    out = run(tmp_path / "out", tiny_base, *SMALL, "treatment.train.learning_rate=1e9")
    runs = table(out, "runs")
    assert set(runs.status) == {"diverged"}
    assert set(table(out, "evals").phase) == {"base", "organism", "treatment"}
    assert runs.error.str.fullmatch(r"treatment: diverged at step \d+").all()


class Narrow(Exception):
    """The width at which a program was called."""


def short_of_memory(monkeypatch: pytest.MonkeyPatch, lanes: int) -> list[int]:
    """Let programs that train more than `lanes` runs fail as XLA does; the lanes of each call."""
    train, seen = Trainer.train.func, []

    def limited(self: Trainer) -> Callable[..., Any]:
        def program(*arguments: Any) -> Any:
            seen.append(self.lanes)
            if self.lanes > lanes:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")
            return train(self)(*arguments)

        return program

    monkeypatch.setattr(Trainer, "train", property(limited))
    return seen


def test_a_cohort_out_of_memory_is_retried_at_half_the_width(
    reference: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = short_of_memory(monkeypatch, lanes=2)
    out = run(tmp_path / "out", tiny_base, *SMALL, width="8", mesh="cpu-1")
    assert sorted(set(seen)) == [2, 4, 8]
    assert seen.count(8) == seen.count(4) == 1  # what is learnt is kept
    assert_same_rows(out, reference, rtol=1e-4)


def test_a_run_that_has_no_memory_by_itself_is_recorded(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short_of_memory(monkeypatch, lanes=0)
    assert start(tmp_path / "out", tiny_base, *SMALL) == 1
    assert table(tmp_path / "out", "runs").error.str.contains("RESOURCE_EXHAUSTED").all()


# Damage


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


PARTS = {
    "weights": "phases/*/weights/**/d/*",
    "record": "phases/*/record.json",
    "manifest": "phases/*/manifest.json",
    "evals": "evals/*.parquet",
    "runs": "runs/*.parquet",
    "note": "parts/*.json",
    "plan": "plan.json",
}


@pytest.mark.parametrize(
    "harm",
    [flip, pytest.param(truncate, marks=pytest.mark.long), Path.unlink],
    ids=["flip", "truncate", "remove"],
)
@pytest.mark.parametrize("part", PARTS)
def test_what_is_damaged_is_set_aside_and_made_anew(
    part: str,
    harm: Callable[[Path], None],
    done: Path,
    reference: Path,
    tiny_base: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    victim = sorted(done.glob(PARTS[part]))[-1]
    harm(victim)
    broken = victim.read_bytes() if victim.exists() else None
    gone = part in ("plan", "note") and broken is None  # cannot be told from a kill before it
    capsys.readouterr()
    run(done, tiny_base, *SMALL)
    said = capsys.readouterr().out
    assert ("damaged: " in said) is not gone
    assert same_tables(done, reference) == ""
    aside = [path.read_bytes() for path in (done / "damaged").rglob("*") if path.is_file()]
    assert broken is None or broken in aside
    run(done, tiny_base, *SMALL)
    assert "damaged: " not in capsys.readouterr().out


def test_a_damaged_state_of_a_phase_in_training_is_set_aside(
    reference: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Measuring, "measure", dying(Measuring.measure, "organism"))
        with pytest.raises(KeyboardInterrupt):
            start(out, tiny_base, *SMALL)
    states = sorted((out / "partial").iterdir())
    assert len(states) == 2
    flip(states[0])
    run(out, tiny_base, *SMALL)
    assert same_tables(out, reference) == ""
    assert [path.name for path in (out / "damaged/partial").iterdir()] == [states[0].name]


def dying(measure: Callable[..., None], kind: str) -> Callable[..., None]:
    """`Measuring.measure`, which is interrupted for phases of a kind."""

    def measured(self: Measuring, *arguments: Any, **options: Any) -> None:
        if self._lanes.phases[0].kind == kind:
            raise KeyboardInterrupt
        measure(self, *arguments, **options)

    return measured


# Folders


def test_a_second_process_leaves_and_names_the_first(done: Path, tiny_base: Path) -> None:
    said = f"in use by process {os.getpid()} on .*; wait for it"
    with Lock(Folder(done, print)).held():
        before = contents(done)
        with pytest.raises(Refusal, match=said):
            start(done, tiny_base, *SMALL)
        assert contents(done) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dead_owners_lock_is_taken_over(
    done: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = f"""
import os
from pathlib import Path
from jaxorg.storage.folder import Folder
from jaxorg.storage.layout import VersionShape
from jaxorg.storage.lock import Lock
with Lock(Folder(Path({str(done)!r}), print)).held():
    os._exit(9)
"""
    dead = subprocess.Popen([sys.executable, "-c", code])
    assert dead.wait() == 9
    run(done, tiny_base, *SMALL)
    assert f"taken over from process {dead.pid} on " in capsys.readouterr().out


def test_a_folder_of_another_version_is_refused(done: Path, tiny_base: Path) -> None:
    plan = done / "plan.json"
    Folder(done, print).write_json(plan, {"version": manifest.VERSION + 1})
    with pytest.raises(Refusal, match=f"layout version {manifest.VERSION + 1}, and this jaxorg"):
        start(done, tiny_base, *SMALL)
    plan.unlink()
    (done / ".lock").unlink()
    with pytest.raises(Refusal, match="layout version 1, and this jaxorg"):
        start(done, tiny_base, *SMALL)
    assert not plan.exists()
    run(done, tiny_base, *SMALL, fresh=True)


def test_a_changed_sweep_keeps_what_is_valid_and_loses_nothing(
    done: Path, reference: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phases = {path: path.read_bytes() for path in done.glob("phases/*/*.json")}
    run(done, tiny_base, "grid=[{treatment.kind: [hhh, plain]}]", "seeds=2")
    said = capsys.readouterr().out
    assert "the sweep changed: 2 runs are kept, 2 are new, 2 are no longer in it" in said
    assert all(path.read_bytes() == content for path, content in phases.items())
    stay = set(table(reference, "runs").run_id) & set(table(done, "runs").run_id)
    assert len(stay) == 2
    assert len(table(done, "runs")) == 4
    assert_same_rows(done, reference, sorted(stay))
    earlier = done / "earlier" / "sweep"
    kept = set(table(earlier, "runs").run_id) | stay
    assert kept == set(table(reference, "runs").run_id)
    assert len(manifest.read(earlier).runs) == 4


def test_keep_none_leaves_tables_only_and_can_go_on(
    reference: Path, tiny_base: Path, tmp_path: Path
) -> None:
    out = run(tmp_path / "out", tiny_base, *SMALL, keep="none")
    assert not list(out.glob("phases/*/weights"))
    assert same_tables(out, reference) == ""
    more = "grid=[{treatment.kind: [hhh, pirate, plain]}]"
    run(out, tiny_base, more, "seeds=2", keep="none")
    assert len(table(out, "runs")) == 6
    assert_same_rows(out, reference, list(table(reference, "runs").run_id))


@pytest.mark.long
def test_keep_none_keeps_the_adapters_that_others_stand_on(tiny_base: Path, tmp_path: Path) -> None:
    lora = [f"{phase}.train.lora={{rank: 2, alpha: 4}}" for phase in ("organism", "treatment")]
    kept = run(tmp_path / "kept" / "out", tiny_base, *SMALL, *lora)
    none = run(tmp_path / "none" / "out", tiny_base, *SMALL, *lora, keep="none")
    assert same_tables(kept, none) == ""
    bytes_of = {path.parts[-2]: 0 for path in kept.glob("phases/*/weights")}
    for path in kept.glob("phases/*/weights/**/*"):
        bytes_of[path.relative_to(kept).parts[1]] += path.stat().st_size if path.is_file() else 0
    phases = table(kept, "evals").drop_duplicates("fingerprint").set_index("fingerprint").phase
    adapters = [bytes_of[fingerprint] for fingerprint in phases.index[phases == "treatment"]]
    full = [bytes_of[fingerprint] for fingerprint in phases.index[phases == "reversal"]]
    assert max(adapters) < min(full) / 2


def test_keep_log_leaves_weights_at_measured_steps(tiny_base: Path, tmp_path: Path) -> None:
    out = run(tmp_path / "out", tiny_base, *SMALL, keep="log")
    evals = table(out, "evals")
    measured = {f"{row.fingerprint}-{row.step}" for row in evals.itertuples()}
    kept = {path.name for path in (out / "snapshots").iterdir()}
    last = evals.groupby("fingerprint").step.max()
    assert kept == measured - {f"{fingerprint}-{step}" for fingerprint, step in last.items()}
    assert len(kept) == 10


# Memory


@pytest.mark.long
def test_programs_of_many_signatures_do_not_all_stay_in_memory(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: weakref.WeakSet[Trainer] = weakref.WeakSet()
    alive: list[int] = []

    class Noted(Trainer):
        def __init__(self, *arguments: Any):
            super().__init__(*arguments)
            made.add(self)
            gc.collect()
            alive.append(len(made))

    monkeypatch.setattr(execute, "trainer_of", lru_cache(1)(Noted))
    batches = "grid=[{organism.train.batch: [1, 2, 3, 4]}]"
    run(tmp_path / "out", tiny_base, batches, "treatment=null", "reversal=null", "seeds=1")
    assert len(alive) == 4
    assert max(alive) == 2  # the new one, and the one that makes room for it


# Disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or remount(disk, "size=24m", "-t", "tmpfs", "tmpfs"):
        pytest.skip("mounting needs a privileged user")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def remount(disk: Path, options: str, *what: str) -> int:
    return subprocess.run(["mount", "-o", options, *what, disk], capture_output=True).returncode


def test_a_full_disk_is_one_line_and_what_is_done_stays(
    small_disk: Path,
    reference: Path,
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, filler = small_disk / "out", small_disk / "filler"
    finished = Console.finished
    with monkeypatch.context() as patch:

        def fill(self: Console, phase: Phase, record: Any) -> None:
            finished(self, phase, record)
            if phase.kind == "organism":
                with filler.open("ab", buffering=0) as file, pytest.raises(OSError, match="space"):
                    while True:
                        file.write(bytes(1000))

        patch.setattr(Console, "finished", fill)
        with pytest.raises(StorageError, match=r"cannot be written to \(.*; make room") as caught:
            start(out, tiny_base, *SMALL)
    assert len(str(caught.value).splitlines()) == 1
    assert len(table(out, "evals").fingerprint.unique()) >= 1
    filler.unlink()
    run(out, tiny_base, *SMALL)
    assert same_tables(out, reference) == ""


def test_a_sweep_that_the_disk_has_no_room_for_is_refused(
    small_disk: Path, tiny_base: Path, tmp_path: Path
) -> None:
    assert remount(small_disk, "remount,size=1m") == 0
    before = list(small_disk.iterdir())
    with pytest.raises(Refusal, match=r"--out: .* needs about .* are free; choose another disk"):
        start(small_disk / "out", tiny_base, *SMALL)
    assert list(small_disk.iterdir()) == before == []


def test_a_read_only_folder_is_refused(small_disk: Path, reference: Path, tiny_base: Path) -> None:
    shutil.copytree(reference, small_disk / "out")
    assert remount(small_disk, "remount,ro") == 0
    for out, fresh in product((small_disk / "out", small_disk / "new"), (False, True)):
        with pytest.raises(Refusal, match="cannot be written to .*; choose another"):
            start(out, tiny_base, *SMALL, fresh=fresh)
    assert same_tables(small_disk / "out", reference) == ""


def test_a_run_that_no_device_has_memory_for_is_refused(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaxorg.cli.sweep.run_memory", lambda mesh: 100_000)
    with pytest.raises(
        Refusal, match=r"base.model: one run takes about .*, and a device has 100 KB"
    ):
        start(tmp_path / "out", tiny_base, *SMALL)
    assert not (tmp_path / "out").exists()


# Status


def test_status_tells_done_failed_missing_and_who_works_on_it(
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        failing(patch, lambda phase: (phase.kind, phase.seed) == ("treatment", 1))
        patch.setattr(Measuring, "measure", dying(Measuring.measure, "reversal"))
        with pytest.raises(KeyboardInterrupt):
            start(out, tiny_base, *SMALL)
    capsys.readouterr()
    before = contents(out)
    said = status(out, capsys)
    assert cells(said, "runs") == [0, 0, 2, 2, 0]
    assert cells(said, "treatment") == [2, 0, 2, 0, 0]
    assert cells(said, "reversal") == [0, 0, 0, 2, 2]
    assert "it is not running; about" in said
    assert len(re.findall("failed: treatment .*: ZeroDivisionError: of seed 1", said)) == 2
    assert contents(out) == before
    lock = Lock(Folder(out, print))
    with lock.held():
        lock.note({"seconds_left": 480})
        said = status(out, capsys)
    assert f"process {os.getpid()} on " in said
    assert "about 8 min left" in said


def test_status_of_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="--status: .* is no results folder"):
        start(tmp_path / "out", "jaxorg-1m", show=tmp_path)


def status(out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    start(out, "jaxorg-1m", show=out)
    return capsys.readouterr().out


def cells(said: str, name: str) -> list[int]:
    """A row of the status table."""
    row = next(line for line in said.splitlines() if f" {name} " in line)
    return [int(cell) for cell in re.findall(r"\d+", row)]


def test_each_single_changed_bit_of_a_note_is_noticed(tmp_path: Path) -> None:
    note = tmp_path / "note.json"
    Folder(tmp_path, print).write_json(note, {"version": 3})
    whole = note.read_bytes()
    assert read_json(note, VersionShape) == {"version": 3}
    for bit in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        note.write_bytes(changed)
        with pytest.raises(Damaged):
            read_json(note, VersionShape)
