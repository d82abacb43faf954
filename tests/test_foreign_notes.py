"""JSON of a results folder whose checksum is right and whose content is not jaxorg's: one line."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxorg.cli import status
from jaxorg.data import cache
from jaxorg.data.cache import DatasetCache
from jaxorg.data.tokenized import TokenizedDataset
from jaxorg.errors import Damaged, Refusal, StorageError
from jaxorg.planning import manifest
from jaxorg.storage import results
from jaxorg.storage.folder import Folder, Json, sha256, sums_of, write_json
from jaxorg.storage.glance import read_record
from jaxorg.storage.lock import Lock
from jaxorg.storage.store import Store
from sweeps import run, same_tables

DONE, FAILED, TRAINING, MISSING = ("0" * 16, "1" * 16, "2" * 16, "3" * 16)
KEY, RUN = "4" * 16, "5" * 16
PART = f"base-{KEY}"
DEEP = "[" * 100_000 + "]" * 100_000
EVAL = {"step": 0, "tokens": 0, "metric": "m", "condition": "c", "k": 1, "n": 2, "value": 0.5}
SAMPLE = {
    "step": 0, "condition": "c", "prompt": "p", "greedy": True, "response": "r", "tokens": [1, 2],
    "ended": True,
}  # fmt: skip
RECORD: Json = {
    "evals": [EVAL],
    "losses": [0.5, None],
    "grad_norms": [1.5, None],
    "update_norms": [0.1],
    "learning_rates": [],
    "tokens": 3,
    "diverged": None,
    "chip_seconds": 1.0,
}
MEASURED: Json = {
    "6" * 16: {"samples": [SAMPLE], "trained": 3},
    "7" * 16: {"evals": [EVAL], "outcomes": ["o"]},
}
PROGRESS: Json = {"step": 3, "record": RECORD | {"measured": MEASURED}}
WRONG: list[Any] = [None, True, -1, 0.5, 10**30, float("nan"), float("inf"), "x", [], {}, [[1]]]
WRONG += ["[/red]\x1b[2J\n", {"a": 1}, "../../../etc/passwd", "a\0b", "\ud800", "x" * 5000]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder with a phase in every state, made without training."""
    monkeypatch.setattr(cache, "LARGE", 100)
    place = Folder(tmp_path, lambda _: None)
    store = Store(place)
    store.save(DONE, {"a": np.ones(3, np.float32)}, RECORD | {"parameters": 3}, MEASURED)
    store.fail(FAILED, "ZeroDivisionError", "Traceback")
    state = [np.ones(3, np.float32)]
    store.keep_partial(TRAINING, state, PROGRESS)
    store.keep_round(TRAINING, 0, state, {"memory": ["m"], "notes": [["n", 1, 2, 0.5]]})
    store.keep_answers(KEY, {"prompt": "answer"})
    DatasetCache(place).keep(TRAINING, iter([conversations()]), 0)
    results.Parts(place).write(PART, "source", {"losses": (results.LOSSES, [])})
    phases = dict.fromkeys((DONE, FAILED, TRAINING, MISSING), ("base", 5))
    manifest.Manifest("trial", "smoke", {"a": 1}, {RUN: [*phases]}, phases).write(place, tmp_path)
    return tmp_path


def conversations() -> TokenizedDataset:
    return TokenizedDataset(
        np.ones((9, 30), np.int32), np.tile(np.array([3, 30], np.int32), (9, 1))
    )


def altered(content: Any) -> Iterator[Any]:
    """Content with one of its values, at any depth, lost or replaced by another."""
    yield from WRONG
    places = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(places):
        less = deepcopy(content)
        del less[key]
        yield less
        inner = altered(value) if isinstance(value, dict | list) else iter(WRONG)
        for other in inner:
            changed = deepcopy(content)
            changed[key] = other
            yield changed
        if isinstance(content, dict):
            yield {**less, "another": value}
            yield {**content, "another": value}


def checked_text(text: str) -> str:
    """JSON text with the checksum that `write_json` would give it."""
    return f'{{"sha256": "{hashlib.sha256(text.encode()).hexdigest()}", "content": {text}}}'


def versions_of(path: Path) -> Iterator[None]:
    """Have each altered content in a file, one after another; then the file as it was."""
    before = path.read_bytes()
    for content in altered(json.loads(before)["content"]):
        write_json(path, content)
        yield
    for text in (DEEP, "9" * 5000, "null", '{"version": 2, "version": 2}', "{", '"\\ud800"'):
        path.write_text(checked_text(text))
        yield
    path.write_bytes(before)


@pytest.mark.parametrize(
    "name",
    ["plan.json", "owner.json", f"phases/{DONE}/manifest.json", f"failed/{FAILED}.json"],
)
def test_status_of_an_altered_folder_is_its_status_or_one_line(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = 0
    with Lock(Folder(folder, print)).held():
        for _ in versions_of(folder / name):
            tried += 1
            try:
                status.show(folder)
            except (Refusal, StorageError) as told:
                assert len(str(told).splitlines()) == 1
            assert "\x1b" not in capsys.readouterr().out
    assert tried > 50


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "plan": ("plan.json", manifest.read),
    "record": (f"phases/{DONE}/record.json", lambda out: read_record(out, DONE)),
    "manifest": (f"phases/{DONE}/manifest.json", lambda out: store_of(out).has(DONE)),
    "measurements": (
        f"measurements/{DONE}.json",
        lambda out: store_of(out).measurements(DONE),
    ),
    "failure": (f"failed/{FAILED}.json", lambda out: store_of(out).failure(FAILED)),
    "answers": (f"answers/{KEY}.json", lambda out: store_of(out).answers(KEY)),
    "dataset": (
        f"datasets/{TRAINING}/manifest.json",
        lambda out: DatasetCache(Folder(out, print)).keep(TRAINING, iter([conversations()]), 0),
    ),
    "note": (f"parts/{PART}.json", lambda out: parts_of(out).is_current(PART, "source")),
    "note of a report": (
        f"parts/{PART}.json",
        lambda out: results.read(out, "losses", results.LOSSES.names),
    ),
}


def store_of(out: Path) -> Store:
    return Store(Folder(out, lambda _: None))


def parts_of(out: Path) -> results.Parts:
    return results.Parts(Folder(out, lambda _: None))


@pytest.mark.parametrize(("name", "read"), READERS.values(), ids=READERS)
def test_every_reader_takes_what_is_not_ours_for_damaged(
    name: str,
    read: Callable[[Path], object],
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    out = tmp_path_factory.mktemp("copy") / "out"
    for _ in versions_of(folder / name):
        shutil.copytree(folder, out)
        try:
            read(out)
        except (Damaged, Refusal, StorageError) as told:
            assert len(str(told).splitlines()) == 1
        shutil.rmtree(out)


@pytest.mark.parametrize("kind", ["partial", "rounds"])
def test_what_stands_beside_arrays_is_checked(kind: str, folder: Path) -> None:
    about = PROGRESS if kind == "partial" else {"notes": [["n", 1, 2, 0.5]]}
    for content in altered(about):
        store = store_of(folder)
        if kind == "partial":
            store.keep_partial(TRAINING, [np.ones(3)], content)
            assert isinstance(store.partial_step(TRAINING), int)
        else:
            store.keep_round(TRAINING, 0, [np.ones(3)], content)
            found = store.round(TRAINING, 0)
            assert found is None or isinstance(found[1], dict)


def test_a_sweep_makes_anew_what_is_not_its_own(tiny_base: Path, tmp_path: Path) -> None:
    small = ("grid=[{treatment.kind: [hhh]}]", "seeds=1", "reversal=null")
    whole = run(tmp_path / "whole" / "out", tiny_base, *small)
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    first, second, third = sorted((out / "phases").iterdir())
    record = json.loads((first / "record.json").read_text())["content"]
    write_json(first / "record.json", record | {"tokens": "many"})
    place = out / "measurements" / f"{third.name}.json"
    found = json.loads(place.read_text())["content"]
    next(iter(found["measurements"].values()))["evals"] = [{"k": "many"}]
    write_json(place, found)
    resealed(first)
    write_json(second / "manifest.json", {"fingerprint": second.name})
    write_json(min((out / "parts").iterdir()), {"source": 3})
    Folder(out, print).write_json(out / "failed" / f"{third.name}.json", {"error": ["no"]})
    write_json(out / "plan.json", {"version": manifest.VERSION})
    run(out, tiny_base, *small)
    assert same_tables(out, whole) == ""
    assert {first.name, second.name} <= {p.name for p in (out / "damaged/phases").iterdir()}


def resealed(phase: Path) -> None:
    """Give a phase's manifest the checksums that its files have now."""
    manifest = json.loads((phase / "manifest.json").read_text())["content"]
    (phase / "manifest.json").unlink()
    assert manifest["sha256"].keys() == sums_of(phase).keys()
    manifest["sha256"]["record.json"] = sha256(phase / "record.json")
    write_json(phase / "manifest.json", manifest)
