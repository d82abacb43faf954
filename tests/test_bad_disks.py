"""Disks that take no more, give nothing back, or say no: one line each, and nothing is lost."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxorg.cli.console import Console
from jaxorg.data import cache
from jaxorg.data.cache import DatasetCache
from jaxorg.data.tokenized import TokenizedDataset
from jaxorg.engine.run import estimate
from jaxorg.errors import Damaged, StorageError
from jaxorg.evaluators import EVALUATORS
from jaxorg.planning.phases import Phase
from jaxorg.planning.plan import Plan, make_plan
from jaxorg.storage import results
from jaxorg.storage.folder import Folder
from jaxorg.storage.store import Store
from jaxorg.sweepfile.spec import load
from sweeps import run, same_tables, start, write

SMALL = ("grid=[{treatment.kind: [hhh]}]", "seeds=2", "reversal=null")  # 2 runs, 5 phases
Tables = dict[str, tuple[Any, list[Any]]]
FINGERPRINT, KEY = "0" * 16, "1" * 16
RECORD = {
    "evals": [],
    "losses": [0.5] * 10_000,
    "tokens": 3,
    "diverged": None,
    "chip_seconds": 1.0,
    "parameters": 5,
}
MEASURED: dict[str, Any] = {
    "evals": [],
    "samples": [
        {
            "step": 0,
            "condition": "c",
            "prompt": "p" * 5000,
            "greedy": True,
            "response": "r",
            "tokens": [1],
            "ended": True,
        }
    ],
}
ARRAY = np.random.default_rng(0).random((200, 200), np.float32)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A small sweep, undisturbed."""
    return run(tmp_path_factory.mktemp("reference") / "out", tiny_base, *SMALL)


# Writing


@contextmanager
def small_files(most: int = 4096) -> Iterator[None]:
    """Let the system refuse to write files of more bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def conversations() -> Iterator[TokenizedDataset]:
    for seed in range(4):
        tokens = np.random.default_rng(seed).integers(0, 2**30, (500, 30), np.int32)
        yield TokenizedDataset(tokens, np.tile(np.array([3, 30], np.int32), (500, 1)))


def losses() -> Iterator[dict[str, Any]]:
    for step in range(5000):
        about = {"run_id": f"{step * 7919 % 4999}", "fingerprint": FINGERPRINT, "phase": "organism"}
        yield {**about, "step": step, "loss": 1 / (step + 3)}


WRITERS: dict[str, Callable[[Folder], object]] = {
    "weights": lambda f: Store(f).save(FINGERPRINT, {"a": ARRAY}, RECORD),
    "record": lambda f: Store(f).save(FINGERPRINT, None, RECORD),
    "snapshot": lambda f: Store(f).save_snapshot(FINGERPRINT, 3, {"a": ARRAY}, 90),
    "state": lambda f: Store(f).keep_partial(
        FINGERPRINT, {"a": ARRAY}, {"step": 3, "record": RECORD | {"measured": {}}}
    ),
    "measurements": lambda f: Store(f).add_measurements(FINGERPRINT, {KEY: MEASURED}),
    "round": lambda f: Store(f).keep_round(FINGERPRINT, 0, [ARRAY], {}),
    "answers": lambda f: Store(f).keep_answers(KEY, {str(n): "yes" for n in range(1000)}),
    "failure": lambda f: Store(f).fail(FINGERPRINT, "no", "Traceback" * 1000),
    "table": lambda f: results.Parts(f).write(
        f"organism-{KEY}", "x", {"losses": (results.LOSSES, losses())}
    ),
    "dataset": lambda f: DatasetCache(f).keep(FINGERPRINT, conversations(), 0),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_whatever_a_disk_does_not_take_is_one_line_and_can_be_written_later(
    write: Callable[[Folder], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "LARGE", 100)
    place = Folder(tmp_path, print)
    with small_files(), pytest.raises(StorageError, match=r"\(File too large\); make room") as told:
        write(place)
    assert len(str(told.value).splitlines()) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["tmp"]
    write(place)
    assert len(list(tmp_path.iterdir())) > 1
    Folder(tmp_path, print).tidy()
    assert not (tmp_path / "tmp").exists()


MANY = """
import gc, resource, signal, time
from pathlib import Path
import numpy as np
from jaxorg.errors import StorageError
from jaxorg.storage.folder import Folder
from jaxorg.storage.store import Store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
arrays = {{str(n): np.random.default_rng(n).random((200, 200), np.float32) for n in range(50)}}
for number in range(3):
    try:
        Store(Folder(Path({place!r}), print)).save(str(number) * 16, arrays, {record})
    except StorageError:
        gc.collect()
        time.sleep(0.2)
"""


def test_what_is_left_of_a_write_that_failed_says_nothing_more(tmp_path: Path) -> None:
    code = MANY.format(place=str(tmp_path), record=RECORD | {"losses": []})
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def test_a_disk_that_is_full_when_a_state_is_kept_fails_no_run(
    reference: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    keep = Store.keep_partial

    def full(*arguments: Any) -> None:
        with small_files():
            keep(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "keep_partial", full)
        with pytest.raises(StorageError, match="File too large"):
            start(out, tiny_base, *SMALL)
    assert not (out / "failed").exists()
    run(out, tiny_base, *SMALL)
    assert same_tables(out, reference) == ""


@pytest.mark.parametrize(
    "act",
    [
        lambda f: f.remove(f.path / "a"),
        lambda f: f.move(f.path / "a", f.path / "b"),
        lambda f: f.set_aside(f.path / "a", Damaged("a is not what was written")),
        lambda f: f.write_json(f.path / "a", {}),
    ],
    ids=["remove", "move", "set aside", "replace"],
)
def test_a_disk_that_became_read_only_is_one_line(
    act: Callable[[Folder], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "tmp").mkdir()

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ("rename", "unlink", "mkdir"):
        monkeypatch.setattr(Path, name, refused)
    with pytest.raises(StorageError, match="cannot be written to .Read-only file system"):
        act(Folder(tmp_path, print))
    assert (tmp_path / "a").read_text() == "old"


def test_all_that_is_written_has_the_permissions_that_the_process_gives(tmp_path: Path) -> None:
    before = os.umask(0o026)
    try:
        for writer in WRITERS.values():
            writer(Folder(tmp_path, print))
    finally:
        os.umask(before)
    modes = {(path.is_dir(), oct(path.stat().st_mode & 0o777)) for path in tmp_path.rglob("*")}
    assert modes == {(True, "0o751"), (False, "0o640")}


def test_the_estimate_of_the_disk_counts_states(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 0
    publishing = Folder.publishing

    @contextmanager
    def noted(self: Folder, place: Path) -> Iterator[Path]:
        nonlocal most
        with publishing(self, place) as beside:
            yield beside
            most = max(most, size_of(self.path))

    monkeypatch.setattr(Folder, "publishing", noted)
    out = run(tmp_path / "out", tiny_base, *SMALL)
    plan = planned(out, tiny_base)
    monkeypatch.setattr(estimate, "RECORD_BYTES", 0)
    states = estimate.disk(plan, "final", lanes=2) - estimate.disk(plan, "final", lanes=0)
    model = max(size_of(weights) for weights in out.glob("phases/*/weights"))
    assert 2.5 * 3 * model < states < 3.5 * 3 * model  # two states, and one that is written
    assert estimate.disk(plan, "final", lanes=0) < most < estimate.disk(plan, "final", lanes=2)


def planned(out: Path, base: Path) -> Plan:
    return make_plan(load(str(write(out, base)), "laptop", list(SMALL)))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_estimate_counts_answers_and_rounds(tiny_base: Path, tmp_path: Path) -> None:
    plain = planned(tmp_path / "a", tiny_base)
    file = str(write(tmp_path / "a", tiny_base))
    spoken = make_plan(load(file, "laptop", [*SMALL, "treatment.answers=on-policy"]))
    assert estimate.disk(spoken, "final") - estimate.disk(plain, "final") == 2 * 64 * 44 * 8


# Reading


def bad_sector(path: Path) -> None:
    """Let a file be one that the system cannot read: EIO."""
    path.unlink()
    path.symlink_to("/proc/self/mem")


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ("phases/{}/weights/d/*", "organism"),
        ("phases/{}/weights/manifest.ocdbt", "organism"),
        ("phases/{}/record.json", "organism"),
        ("phases/{}/record.json", "base"),
        ("phases/{}/manifest.json", "base"),
        ("measurements/{}.json", "organism"),
        ("measurements/{}.json", "treatment"),
    ],
)
def test_what_a_disk_cannot_give_back_is_made_anew(
    part: str,
    kind: str,
    reference: Path,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """While a sweep runs that has just written it."""
    out = tmp_path / "out"
    finished, harmed = Console.finished, []

    def harm(self: Console, phase: Phase, record: Any) -> None:
        finished(self, phase, record)
        if phase.kind == kind and not harmed:
            for victim in out.glob(part.format(phase.fingerprint)):
                bad_sector(victim)
                harmed.append(victim)

    monkeypatch.setattr(Console, "finished", harm)
    run(out, tiny_base, *SMALL)
    assert harmed
    assert same_tables(out, reference) == ""
    assert not (out / "failed").exists()
    run(out, tiny_base, *SMALL)
    assert f"moved to damaged/{part.partition('/')[0]}" in capsys.readouterr().out
    assert same_tables(out, reference) == ""


@pytest.mark.parametrize("part", ["evals/*.parquet", "parts/*.json", "plan.json"])
def test_what_a_disk_cannot_give_back_at_the_next_start_is_made_anew(
    part: str, reference: Path, tiny_base: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(reference, tmp_path / "out"))
    bad_sector(min(out.glob(part)))
    run(out, tiny_base, *SMALL)
    assert same_tables(out, reference) == ""
    assert list((out / "damaged").rglob(Path(part).name))


def test_a_disk_that_damages_again_and_again_ends_in_one_line(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(self: Store, fingerprint: str, wanted: object = ()) -> None:
        raise Damaged(f"{fingerprint} cannot be read (Input/output error)")

    monkeypatch.setattr(Store, "record", unreadable)
    with pytest.raises(StorageError, match="cannot be read .* check the disk"):
        start(tmp_path / "out", tiny_base, *SMALL)


@pytest.mark.parametrize("part", ["weights/d/*", "record.json", "manifest.json"])
def test_what_one_may_not_read_is_not_called_damaged(
    part: str,
    reference: Path,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = Path(shutil.copytree(reference, tmp_path / "out"))
    locked = set(out.glob(f"phases/*/{part}"))
    opened = Path.open

    def refused(self: Path, *arguments: Any, **options: Any) -> Any:
        if self in locked:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(StorageError, match=r"cannot be read \(Permission denied\); mend that"):
        start(out, tiny_base, *SMALL)
    assert not (out / "damaged").exists()
    monkeypatch.undo()
    run(out, tiny_base, *SMALL)
    assert same_tables(out, reference) == ""


def test_a_state_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    said: list[str] = []
    store = Store(Folder(tmp_path, said.append))
    place = tmp_path / "partial" / f"{FINGERPRINT}.safetensors"
    store.keep_partial(FINGERPRINT, {"a": ARRAY}, {"step": 3, "record": RECORD})
    bad_sector(place)
    assert store.partial_step(FINGERPRINT) == 0
    assert f"{place} cannot be read (Input/output error); moved to damaged" in said[0]


def test_a_pool_that_cannot_be_read_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "LARGE", 100)
    kept = DatasetCache(Folder(tmp_path, print)).keep(FINGERPRINT, conversations(), 0)
    for chunk in (tmp_path / "datasets" / FINGERPRINT / "tokens" / "c").iterdir():
        bad_sector(chunk)
    with pytest.raises(Damaged, match="datasets/0{16} cannot be read"):
        kept.read(np.arange(2000))


# Kills while a part of the tables is replaced


class Killed(BaseException):
    """The process ends here."""


def die_before(patch: pytest.MonkeyPatch, number: int) -> None:
    """Let the process end before its operation `number` on the disk."""
    left = number

    def dying(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return function(*arguments, **options)

        return called

    patch.setattr(os, "fsync", dying(os.fsync))
    for name in ("rename", "unlink", "mkdir", "rmdir"):
        patch.setattr(Path, name, dying(getattr(Path, name)))


def test_a_kill_while_a_part_is_replaced_is_not_called_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, said = f"organism-{KEY}", list[str]()
    old: Tables = {"losses": (results.LOSSES, []), "evals": (results.EVALS, [])}
    new: Tables = {"losses": (results.LOSSES, [*losses()]), "samples": (results.SAMPLES, [])}
    for number in count():
        out = tmp_path / str(number)
        results.Parts(Folder(out, said.append)).write(part, "old", old)
        with monkeypatch.context() as patch, suppress(Killed):
            die_before(patch, number)
            results.Parts(Folder(out, said.append)).write(part, "new", new)
            break
        results.read(out, "losses", results.LOSSES.names)  # nothing that is there is damaged
        again = results.Parts(Folder(out, said.append))
        if not again.is_current(part, "new"):
            again.write(part, "new", new)
        assert again.is_current(part, "new")
        found = results.read(out, "losses", results.LOSSES.names)
        assert found is not None and found.num_rows == 5000
        assert results.read(out, "evals", results.EVALS.names) is None
    assert number > 10
    assert said == []


# Measurements that are lost between two looks at them


def lost_measurements(folder: Path) -> Store:
    """A store that knows of a measurement that is damaged by now."""
    store = Store(Folder(folder, print))
    store.save(FINGERPRINT, None, RECORD, {KEY: MEASURED})
    bad_sector(folder / "measurements" / f"{FINGERPRINT}.json")
    return store


def test_no_record_is_read_without_measurements_that_were_there(tmp_path: Path) -> None:
    store = lost_measurements(tmp_path)
    with pytest.raises(Damaged):
        store.record(FINGERPRINT, [KEY])
    store.look_again()
    assert not store.measured(FINGERPRINT)


def test_nor_after_others_were_added(tmp_path: Path) -> None:
    store = lost_measurements(tmp_path)
    store.add_measurements(FINGERPRINT, {"2" * 16: MEASURED})
    with pytest.raises(Damaged):
        store.record(FINGERPRINT, [KEY])
    store.look_again()
    assert store.measured(FINGERPRINT) == {"2" * 16}


def test_answers_that_were_lost_are_damage_and_no_fault_of_who_reads_them(tmp_path: Path) -> None:
    store = lost_measurements(tmp_path)
    with pytest.raises(Damaged, match="lacks what was answered"):
        store.answers_to_read(FINGERPRINT, KEY)


@pytest.mark.parametrize(
    ("lost", "asked"),
    [
        ("measurements/{}.json", ()),
        ("phases/{}/record.json", ("prompts.teacher=base", "prompts.new_tokens=4")),
    ],
    ids=["answers", "a record, where a teacher answers"],
)
def test_what_is_lost_after_a_look_at_all_there_is_is_made_anew(
    lost: str,
    asked: tuple[str, ...],
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A finished sweep is started again, and its tables are made anew."""
    once = run(tmp_path / "once", tiny_base, *SMALL, *asked)
    out = Path(shutil.copytree(once, tmp_path / "out"))
    for note in (out / "parts").iterdir():
        note.unlink()
    looked = Console.print_measuring

    def harm(self: Console, *phases: Any) -> None:
        looked(self, *phases)
        (organism, *_) = (p for p in self._plan.phases if p.kind == "organism")
        bad_sector(out / lost.format(organism.fingerprint))

    monkeypatch.setattr(Console, "print_measuring", harm)
    if lost.startswith("measurements"):  # which are then read
        monkeypatch.setattr(EVALUATORS["responses"], "VERSION", 99)
    run(out, tiny_base, *SMALL, *asked)
    assert same_tables(out, once) == ""
    assert not (out / "failed").exists() or not any((out / "failed").iterdir())
