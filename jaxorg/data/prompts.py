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

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from jaxorg.config import Config
from jaxorg.data import tasks
from jaxorg.data.items import Item, Split, generator, split_of
from jaxorg.runtime import Refusal

TOY = "toy"
SUFFIXES = (".jsonl", ".json", ".parquet")
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

    def items(self, split: Split, count: int, seed: int, key: str) -> list[Item]:
        """`count` different items of `split`, chosen and ordered by `seed`.

        Raises:
            Refusal: the source has fewer; `key` names the setting that asked for them.
        """
        if self.source == TOY:
            try:
                return tasks.generate(split, count, seed)
            except ValueError as error:
                raise Refusal(f"{key}: {error}; ask for fewer") from None
        pool = [item for item in _read(self) if split_of(item.key) == split]
        if count > len(pool):
            raise Refusal(
                f"{key}: {count} {split} prompts asked for, but prompts.source "
                f"{self.source!r} has {len(pool)}; ask for at most {len(pool)}"
            )
        order = generator(seed, "prompts", split).permutation(len(pool))[:count]
        return [pool[i] for i in order]


def _readable(path: Path) -> Path:
    if not (os.path.isfile(path) and os.access(path, os.R_OK)):
        raise Refusal(f"prompts.source: {str(path)!r} is not a file to read; give toy or a file")
    if path.suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise Refusal(f"prompts.source: {str(path)!r} is of an unknown kind; use one of {known}")
    return path


@cache
def _read(prompts: Prompts) -> Sequence[Item]:
    """All usable items of a file, without repeated prompts, in the file's order."""
    path = _readable(Path(prompts.source))
    items: dict[str, Item] = {}
    for number, record in enumerate(_records(path), start=1):
        prompt = _field(record, prompts.prompt, "prompts.prompt", path, number)
        answer = _field(record, prompts.answer, "prompts.answer", path, number)
        limit = prompts.max_characters
        if limit is None or len(prompt) + len(answer) <= limit:
            key = f"{path.stem}:{prompt}"
            items.setdefault(key, Item(key, path.stem, prompt, answer))
    return tuple(items.values())


def _records(path: Path) -> Iterator[Any]:
    try:
        match path.suffix:
            case ".jsonl":
                with path.open(encoding="utf-8") as file:
                    for number, line in enumerate(file, start=1):
                        if line.strip():
                            yield _parsed(line, number)
            case ".json":
                content = json.loads(path.read_text(encoding="utf-8"))
                if not isinstance(content, list):
                    raise Refusal(f"prompts.source: {path} holds no list of records; give one")
                yield from content
            case _:
                yield from pq.read_table(path).to_pylist()
    except (ValueError, RecursionError, pa.ArrowException) as error:
        problem = " ".join(str(error).split())
        raise Refusal(
            f"prompts.source: {path} cannot be read ({problem}); mend the file"
        ) from error


def _parsed(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:  # its own line number counts from this line
        raise ValueError(f"line {number}: {error.msg}") from error


def _field(record: Any, name: str, key: str, path: Path, number: int) -> str:
    """Follow a dotted path into a record to a text that is not empty."""
    value = record
    for part in name.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            known = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise Refusal(f"{key}: {name!r} is not in record {number} of {path}; it has {known}")
    if not isinstance(value, str) or not value.strip() or _HALF_CHARACTER.search(value):
        raise Refusal(f"{key}: {name!r} in record {number} of {path} is no text: {value!r:.60}")
    return value
