"""Weights and records of phases on disk, named by lineage.

A phase's folder is written beside its place and renamed when everything in it is on disk, so it
is there as a whole or not at all. Its manifest lists every file with its SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from jaxorg.runtime import Refusal

Tree = Any  # nested dict of arrays
Record = dict[str, Any]  # JSON


class Store:
    """The phases of one output folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._phases = folder / "phases"
        self._partial = folder / "partial"

    @cached_property
    def _checkpointer(self) -> ocp.StandardCheckpointer:
        # Made when first needed, since it starts a JAX back end.
        return ocp.StandardCheckpointer()

    def open(self) -> None:
        """Make the folder if it is not there, and see that it can be written to.

        Raises:
            Refusal: it cannot.
        """
        probe = self.folder / f".probe.{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise Refusal(
                f"--out: {self.folder} cannot be written to ({error.strerror}); choose another"
            ) from error

    def has(self, lineage: str) -> bool:
        """Whether a phase is done."""
        return (self._phases / lineage / "manifest.json").is_file()

    def record(self, lineage: str) -> Record:
        """What was measured in a phase that is done."""
        content = json.loads((self._phases / lineage / "record.json").read_text(encoding="utf-8"))
        return dict(content)

    def weights(self, lineage: str, shapes: Tree) -> Tree:
        """The full weights that a phase left, like the abstract tree `shapes`."""
        path = (self._phases / lineage / "weights").absolute()
        return self._checkpointer.restore(path, shapes)

    def save(self, lineage: str, weights: Tree | None, record: Record) -> None:
        """Store a phase; from when this returns it is done."""
        place = self._phases / lineage
        beside = _fresh(self._phases / f".{lineage}.{os.getpid()}")
        if weights is not None:
            self._write(beside / "weights", weights)
        _write_json(beside / "record.json", record)
        files = [path for path in sorted(beside.rglob("*")) if path.is_file()]
        sums = {str(path.relative_to(beside)): _sha256(path) for path in files}
        _write_json(beside / "manifest.json", {"lineage": lineage, "sha256": sums})
        _replace(beside, place)

    def save_partial(self, name: str, state: Tree, progress: Record) -> None:
        """Keep the state of phases in training under `name`, for a restart."""
        beside = _fresh(self._partial / f".{name}.{os.getpid()}")
        self._write(beside / "state", state)
        _write_json(beside / "progress.json", progress)
        _replace(beside, self._partial / name)

    def partial(self, name: str, like: Tree) -> tuple[Tree, Record] | None:
        """State and progress of phases whose training was cut short, or None."""
        place = self._partial / name
        if not self.has_partial(name):
            return None
        progress = json.loads((place / "progress.json").read_text(encoding="utf-8"))
        return self._checkpointer.restore((place / "state").absolute(), like), progress

    def has_partial(self, name: str) -> bool:
        """Whether there is such a state."""
        return (self._partial / name / "progress.json").is_file()

    def drop_partial(self, name: str) -> None:
        """Forget a state that a finished phase made useless."""
        shutil.rmtree(self._partial / name, ignore_errors=True)

    def drop_partials(self) -> None:
        """Forget all such states, those of other widths and meshes too: the sweep is done."""
        shutil.rmtree(self._partial, ignore_errors=True)

    def clear(self) -> None:
        """Forget everything: the sweep starts afresh."""
        for folder in (self._phases, self._partial):
            shutil.rmtree(folder, ignore_errors=True)

    def _write(self, path: Path, tree: Tree) -> None:
        self._checkpointer.save(path.absolute(), tree)
        self._checkpointer.wait_until_finished()


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _replace(beside: Path, place: Path) -> None:
    """Put a finished folder in its place and make the rename last."""
    shutil.rmtree(place, ignore_errors=True)
    beside.rename(place)
    parent = os.open(place.parent, os.O_RDONLY)
    os.fsync(parent)
    os.close(parent)


def _write_json(path: Path, content: Record) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
