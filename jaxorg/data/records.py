"""The records of a prompt file: JSON, JSON lines or parquet, one after the other."""

from __future__ import annotations

import glob
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TextIO

from jaxorg.data.formats import Unusable
from jaxorg.errors import Refusal, short
from jaxorg.storage import parquet

# Bytes of a file that are read.
LARGEST = {".jsonl": 2**30, ".json": 2**27, ".parquet": 2**30, ".ndjson": 2**30}
LONGEST = 2**24  # characters of a record of JSON lines, bytes of one of parquet
MOST_RECORDS = 2_000_000
MOST_FILES = 1000
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".tar", ".7z")
_SPACES = re.compile(r"[ \t\n\r]*")
_UNDECODED = re.compile("[\udc80-\udcff]")  # what stands for bytes that are not UTF-8


class Record(NamedTuple):
    """A record, or what is wrong with it."""

    number: int  # from 1
    where: str  # in messages
    content: Any


class Columns(Protocol):
    """Says what records consist of."""

    def columns(self, names: Sequence[str], where: str) -> Sequence[str]:
        """Which columns of a table to read, of the `names` that it has; `where` is in messages."""


class File(NamedTuple):
    """A prompt file."""

    family: str  # that its items are measured as
    path: Path


def files(sources: Sequence[str]) -> list[File]:
    """The files that names and patterns stand for, those of a pattern sorted.

    Raises:
        Refusal: there is none, too many, or one that is twice there or is not to be read.
    """
    found: dict[Path, File] = {}
    for source in sources:
        is_pattern = glob.escape(source) != source and not os.path.lexists(source)
        paths = islice(glob.iglob(source), MOST_FILES + 1) if is_pattern else [source]
        before = len(found)
        for path in map(Path, sorted(paths)):
            if path in found:
                raise Refusal(f"prompts.source: {str(path)!r} is listed twice; keep one")
            _check(path)
            found[path] = File(family_of(source), path)
        if len(found) == before:
            raise Refusal(
                f"prompts.source: no file is like {source!r}; give toy, natural or a file"
            )
    if len(found) > MOST_FILES:
        raise Refusal(f"prompts.source: more than {MOST_FILES:,} files; join some of them")
    return list(found.values())


def family_of(source: str) -> str:
    """What items of a name or pattern are measured as."""
    return Path(source).stem


def _check(path: Path) -> None:
    """Refuse what is no file of a known kind and bounded size."""
    kind = path.suffix.lower()
    if not (os.path.isfile(path) and os.access(path, os.R_OK)):
        raise Refusal(
            f"prompts.source: {str(path)!r} is not a file to read; give toy, natural or a file"
        )
    if kind in _PACKED:
        raise Refusal(f"prompts.source: {str(path)!r} is packed; unpack it")
    if kind not in LARGEST:
        known = ", ".join(LARGEST)
        raise Refusal(f"prompts.source: {str(path)!r} is of an unknown kind; use one of {known}")
    _check_size(path, LARGEST[kind])


def read(path: Path, shape: Columns) -> Iterator[Record]:
    """The records of a file.

    Raises:
        Refusal: the file cannot be read, or not to its end.
    """
    try:
        match path.suffix.lower():
            case ".parquet":
                yield from _rows(path, shape)
            case ".json":
                yield from _json(path)
            case _:
                yield from _json(path) if _begins_a_list(path) else _many_lines(path)
    except Refusal:
        raise
    except Exception as error:  # pyarrow raises OSError, KeyError, MemoryError and its own
        raise _unreadable(path, error) from error


def _rows(path: Path, shape: Columns) -> Iterator[Record]:
    """The records of a parquet file, with only the columns that are asked for."""

    def chosen(names: Sequence[str]) -> Sequence[str]:
        return shape.columns(names, f"record 1 of {path}")

    for number, row in enumerate(parquet.rows(path, chosen, MOST_RECORDS, LONGEST), start=1):
        yield Record(number, f"record {number} of {path}", row)


def _many_lines(path: Path) -> Iterator[Record]:
    with _opened(path) as file:
        yield from _lines(file, path)


def _json(path: Path) -> Iterator[Record]:
    """The records of a file that is a list of them, or lines of JSON by another name."""
    _check_size(path, LARGEST[".json"])
    with _opened(path) as file:
        text = file.read()
    start = _visible(text, 0)
    if text.startswith("[", start):
        yield from _listed(text, start + 1, path)
    elif _is_one_value(text, start):
        raise Refusal(f"prompts.source: {path} holds no list of records; give one")
    else:
        yield from _lines(io.StringIO(text), path)


def _is_one_value(text: str, at: int) -> bool:
    try:
        return _visible(text, _value(text, at)[1]) == len(text)
    except (ValueError, RecursionError):
        return False


def _listed(text: str, at: int, path: Path) -> Iterator[Record]:
    """The records of a list that begins before a place of `text`."""
    if _UNDECODED.search(text):
        raise ValueError("it is not UTF-8")
    at, number = _visible(text, at), 0
    while number or not text.startswith("]", at):
        number += 1
        try:
            value, at = _value(text, at)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"record {number}: {_problem(error)}") from error
        yield Record(number, f"record {number} of {path}", value)
        at = _visible(text, at)
        if text.startswith("]", at):
            break
        if not text.startswith(",", at):
            raise ValueError(f"after record {number} stands neither a comma nor the end")
        at = _visible(text, at + 1)
    if _visible(text, at + 1) != len(text):
        raise ValueError("something follows the list")


def _lines(file: TextIO, path: Path) -> Iterator[Record]:
    """The records of lines of JSON; those of blank lines are none."""
    lines = iter(lambda: file.readline(LONGEST), "")
    number = 0
    for place, line in enumerate(lines, start=1):
        if len(line) == LONGEST:
            raise ValueError(f"line {place} is longer than {LONGEST:,} characters")
        if line.strip():
            number += 1
            at = "" if place == number else f" (line {place})"
            yield Record(number, f"record {number} of {path}{at}", _of_line(line, place, path))


def _of_line(line: str, place: int, path: Path) -> Any:
    try:
        if _UNDECODED.search(line):
            raise ValueError("it is not UTF-8")
        return _JSON.decode(line)
    except (ValueError, RecursionError) as error:
        return Unusable(f"prompts.source: {path} cannot be read (line {place}: {_problem(error)})")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object's content; of a key that stands twice, nobody knows which value counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {short(twice)} stands twice in an object")
    return found


_JSON = json.JSONDecoder(object_pairs_hook=_once)


def _value(text: str, at: int) -> tuple[Any, int]:
    """The JSON value that begins at a place, and where it ends."""
    found: tuple[Any, int] = _JSON.raw_decode(text, at)
    return found


def _visible(text: str, at: int) -> int:
    """Where whitespace that begins at a place ends."""
    spaces = _SPACES.match(text, at)
    assert spaces is not None
    return spaces.end()


def _begins_a_list(path: Path) -> bool:
    with _opened(path) as file:
        chunks = iter(lambda: file.read(2**16), "")
        return next((chunk for chunk in chunks if chunk.strip()), "").lstrip().startswith("[")


def _opened(path: Path) -> TextIO:
    """A file as text; bytes that are not UTF-8 are found where they matter."""
    return path.open(encoding="utf-8-sig", errors="surrogateescape")


def _check_size(path: Path, most: int) -> None:
    if path.stat().st_size > most:
        raise Refusal(
            f"prompts.source: {str(path)!r} is larger than {most:,} bytes; use a part of it"
        )


def _unreadable(path: Path, error: Exception) -> Refusal:
    return Refusal(f"prompts.source: {path} cannot be read ({_problem(error)}); mend the file")


def _problem(error: Exception) -> str:
    """What an error says, in one line; a JSON error without its own line number."""
    said = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    return " ".join(said.split()) or type(error).__name__
