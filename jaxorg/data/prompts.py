"""Where prompts come from: the toy world, or a file of the user's with its own answers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
from pydantic import Field, model_validator

from jaxorg.config import Config, later, misfit
from jaxorg.data import tasks
from jaxorg.data.formats import Format, Reader, reader
from jaxorg.data.items import Item, Split, generator
from jaxorg.data.shelf import Picked, Shelf
from jaxorg.runtime import Refusal

TOY = "toy"
TEACHER_BASE = "base"  # the teacher that is the sweep's own base model
# Bytes of a file that are read; JSON in one piece takes many times as many in memory.
LARGEST = {".jsonl": 2**30, ".json": 2**27, ".parquet": 2**30}
LONGEST_LINE = 2**24  # characters of a JSONL record
MOST_RECORDS = 2_000_000
MOST_CHARACTERS = 2**30  # of all prompts and answers; a small parquet file may repeat one endlessly
_BATCH = 64  # records of a parquet file that are unpacked at once


class Prompts(Config):
    """`source: toy`, or a .jsonl, .json or .parquet file, and the shape of its records.

    A field name may be a dotted path into nested records: `instances.0.output`. With a `teacher`,
    a model answers the prompts, and what the source has as answers is not read.
    """

    source: str = TOY
    format: Format = later("fields")
    prompt: str = "prompt"
    answer: str = "answer"
    teacher: str | None = later(None)  # as base.model, or `base` for that very model
    new_tokens: Annotated[int, Field(gt=0, le=2**20)] = later(64)  # of an answer by a model
    max_characters: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _fits_format(self) -> Prompts:
        for key in ("format", "prompt", "answer", "max_characters"):
            value = getattr(self, key)
            if self.source == TOY and value != type(self).model_fields[key].default:
                raise misfit(key, value, "the toy world has no records; name a file")
        if self.teacher and self.answer != "answer":
            raise misfit("answer", self.answer, "a teacher answers; leave it out")
        for key in ("prompt", "answer"):
            if self.format != "fields" and getattr(self, key) != key:
                remedy = f"format {self.format} knows its fields; leave it out"
                raise misfit(key, getattr(self, key), remedy)
        return self

    def digest(self) -> str:
        """What the items depend on: the toy world's version, or the file's name and content.

        Raises:
            Refusal: there is no such file, or nobody knows how to read it.
        """
        if self.source == TOY:
            return f"toy {tasks.TASKS_VERSION}"
        path = _readable(Path(self.source))
        with path.open("rb") as file:
            return f"{path.stem} {hashlib.file_digest(file, 'sha256').hexdigest()}"

    def items(self, split: Split, count: int, seed: int, key: str) -> Sequence[Item]:
        """`count` different items of `split`, chosen and ordered by `seed`; with a teacher, without
        answers.

        Raises:
            Refusal: the source has fewer; `key` names the setting that asked for them.
        """
        if self.source == TOY:
            try:
                items = tasks.generate(split, count, seed)
            except ValueError as error:
                raise Refusal(f"{key}: {error}; ask for fewer") from None
            return [replace(item, answer="") for item in items] if self.teacher else items
        shelf = _read(self)
        pool = shelf.numbers(split)
        if count > len(pool):
            raise Refusal(
                f"{key}: {count} {split} prompts asked for, but prompts.source "
                f"{self.source!r} has {len(pool)}; ask for at most {len(pool)}"
            )
        order = generator(seed, "prompts", split).permutation(len(pool))[:count]
        return Picked(shelf, pool[order])


def _readable(path: Path) -> Path:
    if not (os.path.isfile(path) and os.access(path, os.R_OK)):
        raise Refusal(f"prompts.source: {str(path)!r} is not a file to read; give toy or a file")
    if path.suffix not in LARGEST:
        known = ", ".join(LARGEST)
        raise Refusal(f"prompts.source: {str(path)!r} is of an unknown kind; use one of {known}")
    if path.stat().st_size > LARGEST[path.suffix]:
        most = f"{LARGEST[path.suffix]:,} bytes"
        raise Refusal(f"prompts.source: {str(path)!r} is larger than {most}; use a part of it")
    return path


@cache
def _read(prompts: Prompts) -> Shelf:
    """All usable items of a file, without repeated prompts, in the file's order."""
    path = _readable(Path(prompts.source))
    return Shelf(path.stem, _usable(path, prompts))


def _usable(path: Path, prompts: Prompts) -> Iterator[tuple[str, str]]:
    """Prompts and answers of a file that are no longer than asked for."""
    shape = reader(prompts.format, prompts.prompt, prompts.answer, prompts.teacher is None)
    characters = 0
    for number, record in enumerate(_records(path, shape), start=1):
        prompt, answer = shape.read(record, f"record {number} of {path}")
        characters += len(prompt) + len(answer)
        if number > MOST_RECORDS or characters > MOST_CHARACTERS:
            raise Refusal(
                f"prompts.source: {path} has more than {MOST_RECORDS:,} records or "
                f"{MOST_CHARACTERS:,} characters; use a part of it"
            )
        limit = prompts.max_characters
        if limit is None or len(prompt) + len(answer) <= limit:
            yield prompt, answer


def _records(path: Path, shape: Reader) -> Iterator[Any]:
    try:
        match path.suffix:
            case ".jsonl":
                yield from _lines(path)
            case ".json":
                content = json.loads(path.read_text(encoding="utf-8-sig"))
                if not isinstance(content, list):
                    raise Refusal(f"prompts.source: {path} holds no list of records; give one")
                yield from content
            case _:
                yield from _rows(path, shape)
    except Refusal:
        raise
    except Exception as error:  # pyarrow raises OSError, KeyError, MemoryError and its own
        problem = " ".join(str(error).split()) or type(error).__name__
        raise Refusal(
            f"prompts.source: {path} cannot be read ({problem}); mend the file"
        ) from error


def _lines(path: Path) -> Iterator[Any]:
    """The records of a JSONL file."""
    with path.open(encoding="utf-8-sig") as file:
        lines = iter(lambda: file.readline(LONGEST_LINE), "")
        for number, line in enumerate(lines, start=1):
            if len(line) == LONGEST_LINE:
                raise ValueError(f"line {number} is longer than {LONGEST_LINE:,} characters")
            if line.strip():
                yield _parsed(line, number)


def _rows(path: Path, shape: Reader) -> Iterator[Any]:
    """The records of a parquet file, with only the columns that are asked for."""
    with pq.ParquetFile(path) as file:
        if file.metadata.num_rows > MOST_RECORDS:
            raise ValueError(f"it promises {file.metadata.num_rows:,} records")
        names = file.schema_arrow.names
        wanted: list[str] | None = [name for name in shape.columns if name in names]
        if not all(name in names for name in shape.columns[: shape.needed]):
            wanted = None  # all, for the refusal of the first record to name them
        for batch in file.iter_batches(_BATCH, columns=wanted):
            yield from batch.to_pylist()


def _parsed(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:  # its own line number counts from this line
        raise ValueError(f"line {number}: {error.msg}") from error
