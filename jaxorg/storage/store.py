"""Weights, records and failures of phases on disk, named by fingerprint.

phases/<fingerprint>/weights/       what was trained, fp32: full weights or adapters (Orbax)
                 record.json    what each step showed, tokens, and what its making noted
                 manifest.json  SHA-256 of every file; the phase is done when this is there
measurements/<fingerprint>.json  what was measured of a phase, by measurement fingerprints; it is
                                only ever added to
snapshots/<fingerprint>-<step>/     weights at a measured step, where those are kept, too
partial/<fingerprint>.safetensors   a phase in training: its state, and what was measured so far
rounds/<fingerprint>/<n>.safetensors  what a phase in training is trained on in a round, where it is
                                made of what the model says
failed/<fingerprint>.json           a phase that cannot be done, and why
answers/<key>.json              what models answer to prompts that they were trained on: a teacher's
                                by its key, a phase's parent's by the phase's fingerprint; while a
                                round is asked for, by fingerprint and number, in tokens
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from pydantic import BaseModel
from safetensors import safe_open

from jaxorg.errors import Damaged
from jaxorg.storage.folder import (
    Folder,
    Json,
    check_files,
    check_shape,
    named,
    read_json,
    reading,
    sha256,
    sums_of,
    write_json,
    write_tensors,
    writing,
)
from jaxorg.storage.glance import WEIGHTS, Record, checked_manifest, names_weights, read_record
from jaxorg.storage.hush import hush_orbax
from jaxorg.storage.layout import (
    ENTRIES,
    AnswersShape,
    FailureShape,
    FilesShape,
    MeasurementsShape,
    PartialShape,
    RoundShape,
    SnapshotShape,
)
from jaxorg.storage.weight_reader import Bounds, Names, WeightReader

Tree = Any  # nested dict of arrays
Arrays = Sequence[np.ndarray]
T = TypeVar("T")

_MARGIN = 2**20  # bytes on the disk, for what is written around the arrays


class Store:
    """The phases of one results folder. What is damaged is set aside and counts as not there."""

    def __init__(self, folder: Folder):
        self.folder = folder
        self._phases, self._partial, self._failed = (
            folder.path / name for name in ("phases", "partial", "failed")
        )
        self._snapshots, self._answers, self._rounds, self._measurements = (
            folder.path / name for name in ("snapshots", "answers", "rounds", "measurements")
        )
        self._measured: dict[str, frozenset[str]] = {}
        self._manifests: dict[str, Json | None] = {}
        self._failures: dict[str, str | None] = {}
        self._partials: dict[str, tuple[list[np.ndarray], Record] | None] = {}
        self._looks_closely = False

    @cached_property
    def _checkpointer(self) -> ocp.StandardCheckpointer:
        # Made when first needed, since it starts a JAX back end.
        hush_orbax()
        # The first of several processes writes alone, and waits for no other.
        alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
        return ocp.StandardCheckpointer(multiprocessing_options=alone)

    def has(self, fingerprint: str) -> bool:
        """Whether a phase is done, and all its files are what was written."""
        return self._manifest(fingerprint) is not None

    def has_weights(self, fingerprint: str) -> bool:
        """Whether a phase is done and its weights are there."""
        return names_weights(self._manifest(fingerprint) or {"sha256": {}})

    def diverged(self, fingerprint: str) -> bool:
        """Whether a phase is done and its run diverged in it."""
        return (self._manifest(fingerprint) or {"diverged": None})["diverged"] is not None

    def digest(self, fingerprint: str) -> str:
        """What names the content of a done phase's own record."""
        manifest = self._manifest(fingerprint)
        assert manifest is not None
        return str(manifest["sha256"]["record.json"])

    def record(self, fingerprint: str, wanted: Iterable[str] = ()) -> Record:
        """The record of a phase that is done, with the rows of `wanted` measurements, in their
        order, as far as these were made.

        Raises:
            Damaged: it is not what was written any more, or what was measured is not.
        """
        record = read_record(self.folder.path, fingerprint)
        known, found = self.measured(fingerprint), self.measurements(fingerprint)
        if not known <= set(found):
            raise Damaged(f"{self._measurements_place(fingerprint)} lacks what was measured")
        evals: list[Json] = list(record["evals"])
        samples: list[Json] = []
        of_step: list[Json] = []
        for each in (found[name] for name in wanted if name in found):
            evals += each.get("evals", [])
            if answers := [{**row, "outcome": ""} for row in each.get("samples", [])]:
                of_step = answers
                samples += answers
            if outcomes := each.get("outcomes", []):  # of the answers before, of the same step
                if len(outcomes) != len(of_step):
                    raise Damaged(f"{self._measurements_place(fingerprint)} has other outcomes")
                for row, outcome in zip(of_step, outcomes, strict=True):
                    row["outcome"] = outcome
        return {**record, "evals": evals, "samples": samples}

    def measured(self, fingerprint: str) -> frozenset[str]:
        """The fingerprints of a phase's measurements that are stored."""
        if fingerprint not in self._measured:
            self._measured[fingerprint] = frozenset(self.measurements(fingerprint))
        return self._measured[fingerprint]

    def measurements(self, fingerprint: str) -> Mapping[str, Json]:
        """What was measured of a phase, by measurement fingerprints."""
        found = self._whole(
            self._measurements_place(fingerprint),
            lambda place: read_json(place, MeasurementsShape)["measurements"],
        )
        return found or {}

    def answers_to_read(self, fingerprint: str, name: str) -> Json:
        """What models answered at a measured step of a phase, under a name that is known.

        Raises:
            Damaged: it is lost.
        """
        found = self.measurements(fingerprint)
        if name not in found:
            raise Damaged(f"{self._measurements_place(fingerprint)} lacks what was answered")
        return found[name]

    def add_measurements(self, fingerprint: str, found: Mapping[str, Json]) -> None:
        """Store what was measured of a phase, beside what is there, which stays as it is."""
        before, known = self.measured(fingerprint), self.measurements(fingerprint)
        if not set(found) <= set(known):
            place = self._measurements_place(fingerprint)
            self.folder.write_json(place, {"measurements": {**found, **known}})
        # With what was lost between the two readings, which `record` then says.
        self._measured[fingerprint] = before | set(found) | set(known)

    def _measurements_place(self, fingerprint: str) -> Path:
        return self._measurements / f"{fingerprint}.json"

    def reader(self, fingerprint: str) -> WeightReader:
        """Reads what a phase trained: full weights or adapters. Where these are not what was
        written any more, reading raises `Damaged`."""
        return self._reader(self._phases / fingerprint / WEIGHTS)

    def has_snapshot(self, fingerprint: str, step: int) -> bool:
        """Whether the weights that a phase has at `step` are stored, and are what was written."""
        place = self._snapshots / f"{fingerprint}-{step}"
        return self._whole(place, _checked_files) is not None

    def tokens(self, fingerprint: str, step: int) -> int:
        """The tokens that a done phase had been trained on at `step`, whose weights are stored."""
        place = self._snapshots / f"{fingerprint}-{step}" / "manifest.json"
        if os.path.lexists(place):
            return int(read_json(place, SnapshotShape)["tokens"])
        return int(read_record(self.folder.path, fingerprint)["tokens"])

    def snapshot_reader(self, fingerprint: str, step: int) -> WeightReader:
        """The same as `reader` of the weights that a phase has at `step`."""
        return self._reader(self._snapshots / f"{fingerprint}-{step}" / WEIGHTS)

    def _reader(self, weights: Path) -> WeightReader:
        base = {"driver": "file", "path": f"{weights.resolve()}/"}  # in a URL, `%` and `#` act

        def read(names: Names, bounds: Bounds, dtype: np.dtype) -> np.ndarray:
            # As Orbax lays them out; its own way of reading leaks tens of kilobytes a call.
            place = {"driver": "ocdbt", "base": base, "path": f"{'.'.join(names)}/"}
            with reading(weights):
                array = ts.open({"driver": "zarr", "kvstore": place}, open=True, read=True).result()
                part: np.ndarray = array[tuple(slice(*pair) for pair in bounds)].read().result()
            return part.astype(dtype, copy=False)

        return read

    def save(
        self,
        fingerprint: str,
        weights: Tree | None,
        record: Record,
        measured: Mapping[str, Json] | None = None,
    ) -> None:
        """Store a phase; from when this returns it is done.

        Args:
            fingerprint: names it.
            weights: what it trained, stacked axes cut away; None where that is not kept.
            record: what its making noted.
            measured: what was measured meanwhile, by measurement fingerprints.

        Raises:
            StorageError: the disk does not take it.
        """
        self.add_measurements(fingerprint, measured or {})
        with self.folder.publishing(self._phases / fingerprint) as beside:
            beside.mkdir()
            if weights is not None:
                self._write(beside / WEIGHTS, weights)
            write_json(beside / "record.json", record)
            manifest = {
                "fingerprint": fingerprint,
                "diverged": record["diverged"],
                "chip_seconds": record["chip_seconds"],
                "sha256": sums_of(beside),
            }
            write_json(beside / "manifest.json", manifest)
        self._manifests[fingerprint] = manifest
        self.drop_partial(fingerprint)

    def save_snapshot(self, fingerprint: str, step: int, weights: Tree, tokens: int) -> None:
        """Keep the weights that a phase has at a step.

        Args:
            fingerprint: of the phase.
            step: after which the phase has them.
            weights: nested dict of host arrays, fp32.
            tokens: that it was trained on so far.
        """
        with self.folder.publishing(self._snapshots / f"{fingerprint}-{step}") as beside:
            beside.mkdir()
            self._write(beside / WEIGHTS, weights)
            about = {
                "fingerprint": fingerprint, "step": step, "tokens": tokens,
                "sha256": sums_of(beside),
            }  # fmt: skip
            write_json(beside / "manifest.json", about)

    def drop_weights(self, fingerprint: str) -> None:
        """Forget the weights of a done phase, and keep what was measured."""
        manifest = self._manifest(fingerprint)
        assert manifest is not None
        sums = manifest["sha256"]
        left = {name: s for name, s in sums.items() if not name.startswith(f"{WEIGHTS}/")}
        self._manifests[fingerprint] = manifest = manifest | {"sha256": left}
        place = self._phases / fingerprint
        self.folder.write_json(place / "manifest.json", manifest)
        self.folder.remove(place / WEIGHTS)

    def failure(self, fingerprint: str) -> str | None:
        """Why a phase could not be done; None where nothing is known against it."""
        if fingerprint not in self._failures:
            self._failures[fingerprint] = self._read_failure(fingerprint)
        return self._failures[fingerprint]

    def fail(self, fingerprint: str, error: str, trace: str) -> None:
        """Note that a phase cannot be done: why in one line, and where in the code."""
        about = {"error": error, "trace": trace}
        self.folder.write_json(self._failed / f"{fingerprint}.json", about)
        self._failures[fingerprint] = error

    def forgive_all(self) -> None:
        """Forget that phases failed."""
        self._failures.clear()
        self.folder.clear("failed", ENTRIES["failed"])

    def keep_partial(self, fingerprint: str, state: Tree, progress: Record) -> None:
        """Keep the state of a phase in training, on the host, for a restart."""
        self._write_arrays(self._partial_place(fingerprint), jax.tree.leaves(state), progress)
        self._partials.pop(fingerprint, None)

    def partial_step(self, fingerprint: str) -> int:
        """The step at which a phase's training was cut short; 0 if it was not."""
        found = self._read_partial(fingerprint)
        return found[1]["step"] if found else 0

    def partial(self, fingerprint: str, like: Tree) -> tuple[Tree, Record]:
        """State and progress of a phase whose training was cut short.

        Args:
            fingerprint: of the phase; `partial_step` of it is not 0.
            like: the state of such a phase, abstract or not; the one returned is like it.

        Raises:
            Damaged: the state is of another program; it is set aside.
        """
        found = self._read_partial(fingerprint)
        assert found is not None
        del self._partials[fingerprint]  # it is large
        leaves, progress = found
        expected, structure = jax.tree.flatten(like)
        if [(x.shape, x.dtype) for x in leaves] != [(x.shape, x.dtype) for x in expected]:
            problem = Damaged(f"{self._partial_place(fingerprint)} is the state of another program")
            self.folder.set_aside(self._partial_place(fingerprint), problem)
            raise problem
        return jax.tree.unflatten(structure, leaves), progress

    def drop_partial(self, fingerprint: str) -> None:
        """Forget the state and the rounds that a finished phase made useless."""
        self._partials.pop(fingerprint, None)
        self.folder.remove(self._partial_place(fingerprint))
        self.folder.remove(self._rounds / fingerprint)

    def keep_round(self, fingerprint: str, number: int, arrays: Arrays, about: Record) -> None:
        """Keep what a phase is trained on in a round, until it is done.

        Args:
            fingerprint: of the phase.
            number: of the round, from 0.
            arrays: the rows, as `engine.train.rounds` makes them.
            about: what a restart must know besides.
        """
        self._write_arrays(self._round_place(fingerprint, number), arrays, about)

    def round(self, fingerprint: str, number: int) -> tuple[list[np.ndarray], Record] | None:
        """What was kept of a round, if anything."""
        return self._read_arrays(self._round_place(fingerprint, number), RoundShape)

    def answers(self, key: str) -> dict[str, str]:
        """Answers by their prompts, as far as there are any."""
        found = self._whole(
            self._answers / f"{key}.json", lambda place: read_json(place, AnswersShape)["answers"]
        )
        return found or {}

    def keep_answers(self, key: str, answers: Mapping[str, str]) -> None:
        """Keep answers by their prompts."""
        self.folder.write_json(self._answers / f"{key}.json", {"answers": dict(answers)})

    def drop_answers(self, key: str) -> None:
        """Forget answers that are not needed any more."""
        self.folder.remove(self._answers / f"{key}.json")

    def clear(self) -> None:
        """Forget everything: the sweep starts afresh. What holds more than its manifest accounts
        for is set aside."""
        for name in ("phases", "snapshots"):
            for place in named(self.folder.path / name, ENTRIES[name]):
                if stranger := _stranger(place):
                    problem = Damaged(f"{stranger} is not what jaxorg wrote")
                    self.folder.set_aside(place, problem)
        for name in (
            "phases", "snapshots", "partial", "rounds", "failed", "answers", "measurements",
        ):  # fmt: skip
            self.folder.clear(name, ENTRIES[name])
        self.look_again()

    def look_again(self) -> None:
        """Forget what was found to be whole, and look more closely: something was not."""
        self._manifests.clear()
        self._measured.clear()
        self._failures.clear()
        self._partials.clear()
        self._looks_closely = True

    def _manifest(self, fingerprint: str) -> Json | None:
        """A done phase's manifest; its files are checked when it is first asked for."""
        if fingerprint not in self._manifests:
            place = self._phases / fingerprint
            self._manifests[fingerprint] = self._whole(place, lambda _: self._checked(fingerprint))
        return self._manifests[fingerprint]

    def _checked(self, fingerprint: str) -> Json:
        found = checked_manifest(self.folder.path, fingerprint)
        if self._looks_closely:
            self.record(fingerprint)
        return found

    def _read_failure(self, fingerprint: str) -> str | None:
        place = self._failed / f"{fingerprint}.json"
        return self._whole(place, lambda place: str(read_json(place, FailureShape)["error"]))

    def _whole(self, place: Path, read: Callable[[Path], T]) -> T | None:
        """What `read` gives of a place; None where nothing is there, or something damaged, which
        is set aside."""
        if not os.path.lexists(place):
            return None
        try:
            return read(place)
        except Damaged as problem:
            self.folder.set_aside(place, problem)
            return None

    def _partial_place(self, fingerprint: str) -> Path:
        return self._partial / f"{fingerprint}.safetensors"

    def _read_partial(self, fingerprint: str) -> tuple[list[np.ndarray], Record] | None:
        if fingerprint not in self._partials:
            self._partials[fingerprint] = self._read_arrays(
                self._partial_place(fingerprint), PartialShape
            )
        return self._partials[fingerprint]

    def _round_place(self, fingerprint: str, number: int) -> Path:
        return self._rounds / fingerprint / f"{number}.safetensors"

    def _write_arrays(self, place: Path, arrays: Arrays, progress: Record) -> None:
        leaves = {str(i): np.asarray(leaf) for i, leaf in enumerate(arrays)}
        text = json.dumps(progress)
        about = {"progress": text, "sha256": _digest(leaves, text)}
        with self.folder.publishing(place) as beside:
            write_tensors(beside, leaves, about)

    def _read_arrays(
        self, place: Path, shape: type[BaseModel]
    ) -> tuple[list[np.ndarray], Record] | None:
        return self._whole(place, partial(_arrays, shape))

    def _write(self, place: Path, tree: Tree) -> None:
        # Asked first: what Orbax writes before it fails would take the last room.
        if shutil.disk_usage(place.parent).free < _bytes(tree) + _MARGIN:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with writing():
            self._checkpointer.save(place.resolve(), tree)
            self._checkpointer.wait_until_finished()


def _arrays(shape: type[BaseModel], place: Path) -> tuple[list[np.ndarray], Record]:
    """Arrays of a file, and what stands beside them.

    Raises:
        Damaged: they are not what was written.
    """
    with reading(place):
        sha256(place)  # where the disk cannot give back what is mapped into memory, a process dies
        with safe_open(place, framework="numpy") as file:
            leaves = {str(i): file.get_tensor(str(i)) for i in range(len(file.keys()))}
            about = file.metadata() or {}
        text = about.get("progress", "")
        if about.get("sha256") != _digest(leaves, text):
            raise Damaged(f"{place} is not what was written")
        progress = json.loads(text)
    check_shape(place, progress, shape)
    return list(leaves.values()), progress


def _checked_files(place: Path) -> Json:
    """The manifest of a folder whose files are what was written.

    Raises:
        Damaged: one is not.
    """
    found = read_json(place / "manifest.json", FilesShape)
    check_files(place, found["sha256"])
    return found


def _stranger(place: Path) -> Path | None:
    """Something in a phase's or a snapshot's folder that its manifest does not account for."""
    try:
        known = read_json(place / "manifest.json", FilesShape)["sha256"]
    except Damaged:
        return place
    return next(
        (
            path
            for path in place.rglob("*")
            if not path.is_dir() and str(path.relative_to(place)) not in (*known, "manifest.json")
        ),
        None,
    )


def _bytes(tree: Tree) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def _digest(leaves: Mapping[str, np.ndarray], text: str) -> str:
    total = hashlib.sha256(text.encode())
    for name, leaf in leaves.items():
        total.update(f"{name} {leaf.dtype} {leaf.shape} ".encode())
        total.update(np.ascontiguousarray(leaf).tobytes())
    return total.hexdigest()
