"""Where prompts come from: the toy world, or a file of the user's with its own answers."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import Field

from jaxorg.config import Config
from jaxorg.data import tasks
from jaxorg.data.items import Item, Split, generator
from jaxorg.data.shelf import Picked, Shelf
from jaxorg.runtime import Refusal, short

TOY = "toy"
# Bytes of a file that are read; JSON in one piece takes many times as many in memory.
LARGEST = {".jsonl": 2**30, ".json": 2**27, ".parquet": 2**30}
LONGEST_LINE = 2**24  # characters of a JSONL record
MOST_RECORDS = 2_000_000
MOST_CHARACTERS = 2**30  # of all prompts and answers; a small parquet file may repeat one endlessly
_BATCH = 64  # records of a parquet file that are unpacked at once
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON may spell one; no text holds it


class Prompts(Config):
    """`source: toy`, or a .jsonl, .json or .parquet file with the names of its fields.

    A field name may be a dotted path into nested records: `instances.0.output`.
    """

    source: str = TOY
    prompt: str = "prompt"
    answer: str = "answer"
    max_characters: int | None = Field(default=None, gt=0)

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
        """`count` different items of `split`, chosen and ordered by `seed`.

        Raises:
            Refusal: the source has fewer; `key` names the setting that asked for them.
        """
        if self.source == TOY:
            try:
                return tasks.generate(split, count, seed)
            except ValueError as error:
                raise Refusal(f"{key}: {error}; ask for fewer") from None
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
    characters = 0
    for number, record in enumerate(_records(path, prompts), start=1):
        prompt = _field(record, prompts.prompt, "prompts.prompt", path, number)
        answer = _field(record, prompts.answer, "prompts.answer", path, number)
        characters += len(prompt) + len(answer)
        if number > MOST_RECORDS or characters > MOST_CHARACTERS:
            raise Refusal(
                f"prompts.source: {path} has more than {MOST_RECORDS:,} records or "
                f"{MOST_CHARACTERS:,} characters; use a part of it"
            )
        limit = prompts.max_characters
        if limit is None or len(prompt) + len(answer) <= limit:
            yield prompt, answer


def _records(path: Path, prompts: Prompts) -> Iterator[Any]:
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
                yield from _rows(path, prompts)
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


def _rows(path: Path, prompts: Prompts) -> Iterator[Any]:
    """The records of a parquet file, with only the columns that are asked for."""
    with pq.ParquetFile(path) as file:
        if file.metadata.num_rows > MOST_RECORDS:
            raise ValueError(f"it promises {file.metadata.num_rows:,} records")
        names = file.schema_arrow.names
        columns = []
        for key, field in (("prompts.prompt", prompts.prompt), ("prompts.answer", prompts.answer)):
            column = field.partition(".")[0]
            if column not in names:
                known = ", ".join(names)
                raise Refusal(f"{key}: {field!r} is not in record 1 of {path}; it has {known}")
            columns.append(column)
        for batch in file.iter_batches(_BATCH, columns=columns):
            yield from batch.to_pylist()


def _parsed(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:  # its own line number counts from this line
        raise ValueError(f"line {number}: {error.msg}") from error


def _is_index(part: str, values: list[Any]) -> bool:
    return part.isdecimal() and len(part) < 10 and int(part) < len(values)


def _field(record: Any, name: str, key: str, path: Path, number: int) -> str:
    """Follow a dotted path into a record to a text that is not empty."""
    value = record
    for part in name.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and _is_index(part, value):
            value = value[int(part)]
        else:
            known = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise Refusal(f"{key}: {name!r} is not in record {number} of {path}; it has {known}")
    if not isinstance(value, str) or not value.strip() or _HALF_CHARACTER.search(value):
        raise Refusal(f"{key}: {name!r} in record {number} of {path} is no text: {short(value)}")
    return value
