"""A folder of results: every file in it is there as a whole or not at all, and damage is noticed.

What is written lands in `tmp/`, is made lasting and then renamed into its place. JSON files carry
a checksum of themselves. What is found damaged is moved to `damaged/`, never deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any

from jaxorg.interrupt import Unwinding

Json = dict[str, Any]


class Damaged(Exception):
    """A file is missing, cut short or not what was written."""


class StorageError(Exception):
    """The disk does not take what must be written; what is there stays readable.

    The doors print it as one line and leave with exit code 1.
    """


class Folder:
    """Writes into one folder and moves damaged things aside in it."""

    def __init__(self, path: Path, warn: Callable[[str], None]):
        """`warn` is told, in a line, of everything that is set aside."""
        self.path = path
        self._warn = warn
        self._numbers = count()

    def tidy(self) -> None:
        """Remove what a killed process was writing. Only for the process that holds the lock."""
        shutil.rmtree(self._tmp, ignore_errors=True)

    @contextmanager
    def publishing(self, place: Path) -> Iterator[Path]:
        """Give a path to write a file or a folder to; then put it in `place` as a whole.

        Raises:
            StorageError: the disk is full, read-only or gone.
        """
        beside = self._tmp / f"{next(self._numbers)}-{place.name}"
        try:
            self._tmp.mkdir(parents=True, exist_ok=True)
            yield beside
            for path in [beside, *beside.rglob("*")]:
                _sync(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.is_dir():
                self._retire(place)
            beside.rename(place)
            _sync(place.parent)
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be written to ({error.strerror or error}); make room or mend "
                f"it, and the same command goes on from here"
            ) from error

    def write_json(self, place: Path, content: Json) -> None:
        """Write content that `read_json` gives back, or calls damaged."""
        with self.publishing(place) as beside:
            write_json(beside, content)

    def remove(self, place: Path) -> None:
        """Remove a file or folder that is not needed any more, as a whole."""
        if place.is_dir():
            self._retire(place)
        else:
            place.unlink(missing_ok=True)

    def set_aside(self, place: Path, problem: Exception) -> None:
        """Move something damaged out of the way, and say so."""
        relative = place.relative_to(self.path)
        aside = free_place(self.path / "damaged" / relative)
        aside.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(place):
            place.rename(aside)
        self._warn(f"damaged: {problem}; moved to {aside.relative_to(self.path)}, made anew")

    @property
    def _tmp(self) -> Path:
        return self.path / "tmp"

    def _retire(self, place: Path) -> None:
        self._tmp.mkdir(parents=True, exist_ok=True)
        old = self._tmp / f"{next(self._numbers)}-old-{place.name}"
        place.rename(old)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise what TensorStore says of a disk, that it is full, say, as the `OSError` that it is."""
    try:
        yield
    except ValueError as error:
        if code := re.search(r"os_error_code='(\d+)'", str(error)):
            raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
        raise


def write_json(path: Path, content: Json) -> None:
    """Write JSON with its own checksum, to a path that nobody reads yet."""
    text = _canonical(content)
    path.write_text(json.dumps({"sha256": _digest(text), "content": content}), encoding="utf-8")


def read_json(path: Path) -> Json:
    """The content of a file that `write_json` wrote.

    Raises:
        Damaged: it is missing, cut short or changed.
    """
    try:
        wrapped = json.loads(path.read_text(encoding="utf-8"))
        content: Json = wrapped["content"]
        if wrapped["sha256"] == _digest(_canonical(content)):
            return content
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        pass  # cut short, or changed beyond recognition
    raise Damaged(f"{path} is not what was written")


def check_files(folder: Path, sums: dict[str, str]) -> None:
    """See that files below `folder` have the given SHA-256.

    Raises:
        Damaged: one is missing, changed, or leads out of the folder.
    """
    inside = folder.resolve()
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file() or not path.resolve().is_relative_to(inside):
            raise Damaged(f"{path} is missing")
        if sha256(path) != expected:
            raise Damaged(f"{path} is not what was written")


def sums_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder` by its relative path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def sha256(path: Path) -> str:
    """A file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def placing(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write files to; then put each of them in `folder`, as a whole.

    For folders that are no results folders, and in which others may write, too: where files are
    written has a name that nobody can foresee, and a link that is in their place is replaced, not
    followed.

    Raises:
        StorageError: the disk is full, read-only or gone.
    """
    try:
        work = tempfile.TemporaryDirectory(
            prefix=".jaxorg-", dir=folder, ignore_cleanup_errors=True
        )
        with Unwinding(), work as name:
            yield Path(name)
            for path in sorted(Path(name).iterdir()):
                _sync(path)
                os.replace(path, folder / path.name)
        _sync(folder)
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written to ({error.strerror or error}); make room or mend it, and "
            f"start again"
        ) from error


def free_place(place: Path) -> Path:
    """`place`, or where something is there already, with the first free number behind it."""
    numbered = (place.with_name(f"{place.name}.{number}") for number in count(1))
    return next(path for path in chain([place], numbered) if not os.path.lexists(path))


def _canonical(content: Json) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _sync(path: Path) -> None:
    """Make a file's content, or a folder's list of names, outlive a crash of the machine."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
