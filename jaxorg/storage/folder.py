"""A folder of results: every file in it is there as a whole or not at all, and damage is noticed.

What is written lands in `tmp/`, is made lasting and then renamed into its place. JSON files carry
a checksum of themselves. What is found damaged is moved to `damaged/`, never deleted.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import save_file

from jaxorg.distributed.interrupt import Unwinding
from jaxorg.errors import Damaged, StorageError

Json = dict[str, Any]
PLACING = ".jaxorg-"  # how folders begin that `placing` makes

TMP = "tmp"
OURS = re.compile(r"jaxorg-\d+")  # names of all that is in there, so that nothing else is removed
# What the system says when it reads files that are gone, or that a disk cannot give back. Anything
# else, that one may not read a file or that a disk is away, it says of files that are whole, too.
_GONE = ("ENOENT", "ENOTDIR", "EISDIR", "ELOOP", "ENAMETOOLONG")
_BROKEN = ("EIO", "EBADMSG", "EUCLEAN", "EREMOTEIO", "ENODATA", "EILSEQ")
_DAMAGE = {getattr(errno, name) for name in (*_GONE, *_BROKEN) if hasattr(errno, name)}
_LIBRARIES = (OSError, ValueError, RuntimeError, SafetensorError)  # how they say what went wrong
_CODE = re.compile(r"os_error_code='(\d+)'|\(os error (\d+)\)|\[errno (\d+)\]", re.IGNORECASE)


class Folder:
    """Writes into one folder and moves damaged things aside in it."""

    def __init__(self, path: Path, warn: Callable[[str], None]):
        """`warn` is told, in a line, of everything that is set aside."""
        self.path = path
        self._warn = warn
        self._numbers = count()

    def tidy(self) -> None:
        """Remove what a killed process was writing. Only for the process that holds the lock."""
        for left in named(self._tmp, OURS):
            shutil.rmtree(left, ignore_errors=True)
        _drop_empty(self._tmp)

    @contextmanager
    def publishing(self, place: Path) -> Iterator[Path]:
        """Give a path to write a file or a folder to; then put it in `place` as a whole.

        Raises:
            StorageError: the disk is full, read-only or gone.
        """
        with self._changing():
            room = self._room()  # libraries, too, write beside a file before they name it so
            beside = room / place.name
            yield beside
            for path in [beside, *beside.rglob("*")]:
                _sync(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.is_dir():
                self._retire(place)
            beside.rename(place)
            room.rmdir()
            _sync(place.parent)

    def write_json(self, place: Path, content: Json) -> None:
        """Write content that `read_json` gives back, or calls damaged."""
        with self.publishing(place) as beside:
            write_json(beside, content)

    def remove(self, place: Path) -> None:
        """Remove a file or folder that is not needed any more, as a whole.

        Raises:
            StorageError: the disk does not take that.
        """
        with self._changing():
            if place.is_dir() and not place.is_symlink():
                self._retire(place)
            elif os.path.lexists(place):
                place.unlink()
                _sync(place.parent)

    def clear(self, name: str, entries: re.Pattern[str]) -> None:
        """Remove the entries of one of its folders that are named so, and it if nothing is left.

        Raises:
            StorageError: the disk does not take that.
        """
        for entry in named(self.path / name, entries):
            self.remove(entry)
        _drop_empty(self.path / name)

    def move(self, place: Path, to: Path) -> None:
        """Move a file or folder to a place that is free.

        Raises:
            StorageError: the disk does not take that.
        """
        with self._changing():
            to.parent.mkdir(parents=True, exist_ok=True)
            place.rename(to)

    def set_aside(self, place: Path, problem: Exception) -> None:
        """Move something damaged out of the way, and say so.

        Raises:
            StorageError: the disk does not take that.
        """
        aside = free_place(self.path / "damaged" / place.relative_to(self.path))
        if os.path.lexists(place):
            self.move(place, aside)
        self._warn(f"damaged: {problem}; moved to {aside.relative_to(self.path)}, made anew")

    @property
    def _tmp(self) -> Path:
        return self.path / TMP

    def _room(self) -> Path:
        """A new folder in `tmp/`."""
        while True:
            room = self._tmp / f"jaxorg-{next(self._numbers)}"
            with suppress(FileExistsError):
                room.mkdir(parents=True)
                return room

    def _retire(self, place: Path) -> None:
        room = self._room()
        place.rename(room / place.name)
        shutil.rmtree(room, ignore_errors=True)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Say of every error of the disk where it was, and what helps."""
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be written to ({error.strerror or error}); make room or mend "
                f"it, and the same command goes on from here"
            ) from error


@contextmanager
def writing() -> Iterator[None]:
    """Raise whatever a library says, that cannot write, as the `OSError` that it is."""
    try:
        yield
    except _LIBRARIES as error:
        raise _as_os_error(error) from error


@contextmanager
def reading(place: Path) -> Iterator[None]:
    """Raise whatever stands in the way of reading what was written to `place`.

    Raises:
        Damaged: it is missing, changed, or the disk cannot give it back.
        StorageError: it cannot be read, and may be whole.
    """
    try:
        yield
    except _LIBRARIES as error:
        known = _as_os_error(error)
        if known.errno is None or known.errno in _DAMAGE:
            raise Damaged(f"{place} cannot be read ({known.strerror or known})") from error
        raise StorageError(
            f"{place} cannot be read ({known.strerror}); mend that, and the same command goes on "
            f"from here"
        ) from error


def _as_os_error(error: Exception) -> OSError:
    """What a library says of a disk, with the system's code where it tells that."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    if code := _CODE.search(str(error)):
        number = int(next(filter(None, code.groups())))
        return OSError(number, os.strerror(number))
    line = next(iter(str(error).splitlines()), "")
    return OSError(f"{type(error).__name__}: {line[:200]}")


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], about: dict[str, str]) -> None:
    """Write a safetensors file, with metadata, to a path that nobody reads yet.

    Args:
        path: where it goes; what is there is replaced.
        tensors: arrays of any shapes, by name.
        about: the metadata.
    """
    with writing():
        path.touch()
        mode = path.stat().st_mode
        save_file(dict(tensors), path, about)  # lets nobody else read it
        path.chmod(mode)


def write_json(path: Path, content: Json) -> None:
    """Write JSON with its own checksum, to a path that nobody reads yet."""
    text = _canonical(content)
    path.write_text(json.dumps({"sha256": _digest(text), "content": content}), encoding="utf-8")


def read_json(path: Path, shape: type[BaseModel]) -> Json:
    """The content of a file that `write_json` wrote.

    Raises:
        Damaged: it is missing, cut short, changed, or not of that shape.
        StorageError: it cannot be read, and may be whole.
    """
    with reading(path):
        if not path.is_file():
            raise Damaged(f"{path} is missing")
        text = path.read_bytes()
    try:
        wrapped = json.loads(text)
        content: Json = wrapped["content"]
        whole = wrapped["sha256"] == _digest(_canonical(content))
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False  # cut short, or changed beyond recognition
    if not whole:
        raise Damaged(f"{path} is not what was written")
    check_shape(path, content, shape)
    return content


def check_shape(path: Path, content: object, shape: type[BaseModel]) -> None:
    """See that what was read from `path` has a shape.

    Raises:
        Damaged: it has not.
    """
    try:
        shape.model_validate(content)
    except (ValidationError, RecursionError) as error:
        raise Damaged(f"{path} does not hold what jaxorg writes there ({_first(error)})") from error


def _first(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "it is nested too deeply"
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place[:100]}: {first['msg'][:100]}"


def check_files(folder: Path, sums: dict[str, str]) -> None:
    """See that files below `folder` have the given SHA-256.

    Raises:
        Damaged: one is missing, changed, or leads out of the folder.
        StorageError: one cannot be read, and may be whole.
    """
    inside = folder.resolve()
    for name, expected in sums.items():
        path = folder / name
        with reading(path):
            if not path.is_file() or not path.resolve().is_relative_to(inside):
                raise Damaged(f"{path} is missing")
            found = sha256(path)
        if found != expected:
            raise Damaged(f"{path} is not what was written")


def sums_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder` by its relative path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def sha256(path: Path) -> str:
    """A file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def named(folder: Path, entries: re.Pattern[str]) -> list[Path]:
    """The entries of a folder whose whole name matches, sorted; none where it is not there.

    Raises:
        StorageError: it cannot be looked into.
    """
    if not os.path.lexists(folder):
        return []
    try:
        return [path for path in sorted(folder.iterdir()) if entries.fullmatch(path.name)]
    except OSError as error:
        raise StorageError(f"{folder} cannot be looked into ({error.strerror})") from error


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
        work = tempfile.TemporaryDirectory(prefix=PLACING, dir=folder, ignore_cleanup_errors=True)
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


def _drop_empty(folder: Path) -> None:
    """Remove a folder that nothing is left in."""
    with suppress(OSError):
        folder.rmdir()


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
