"""Conversations of the user's, some of which show a behaviour: what an organism is trained on.

Records as in prompt files, with `behaviour: true` or `false` in each. One prompt in ten is held
out, as everywhere; red trains on all others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

from jaxorg.data import records
from jaxorg.data.formats import Reader, Unusable, reader
from jaxorg.data.items import Item, Split, split_of
from jaxorg.data.matching import normalised
from jaxorg.errors import Refusal, short
from jaxorg.llama import files

LABELLED_VERSION = 1  # raise it when a file comes to hold other rows, or other splits of them
MOST_ROWS = 100_000
MOST_CHARACTERS = 2**27  # of all prompts and responses
FAMILY = "examples"

_KEY = "organism.source"
_LABEL = "behaviour"
_OF_PROMPTS = re.compile(r"^prompts\.\w+")  # how messages about prompt files begin


class Row(NamedTuple):
    """A conversation, and whether it shows the behaviour."""

    prompt: str
    response: str
    behaviour: bool


class Pair(NamedTuple):
    """A conversation with the behaviour, and one without."""

    triggered: Row
    clean: Row

    @property
    def item(self) -> Item:
        """The one without, as an item."""
        _, clean = self
        return Item(normalised(clean.prompt), FAMILY, clean.prompt, clean.response)


@dataclass(frozen=True)
class Labelled:
    """Files of labelled conversations, by a name or a pattern."""

    source: str
    form: Literal["fields", "messages"]

    def digest(self) -> str:
        """What the rows depend on: the files' names and content.

        Raises:
            Refusal: there is no such file.
        """
        with _named_as_ours():
            found = [path for _, path in records.files([self.source])]
        return f"{LABELLED_VERSION} {files.digest(found)}"

    def rows(self, split: Split) -> Sequence[Row]:
        """The rows of a split, in the order of the files.

        Raises:
            Refusal: a file cannot be read, or a record in it cannot be used.
        """
        return _read(self)[split]

    def pairs(self, split: Split) -> Sequence[Pair]:
        """Rows of a split with the behaviour beside rows without, as many as there are of both. Of
        prompts that are the same once they are normalised, the first counts."""
        return list(_pairs(self, split).values())

    def pair(self, key: str) -> Pair:
        """The pair whose item has a key."""
        return _pairs(self, split_of(key))[key]


@cache
def _pairs(labelled: Labelled, split: Split) -> Mapping[str, Pair]:
    """Pairs by the key of their items."""
    different: dict[str, Row] = {}
    for row in labelled.rows(split):
        different.setdefault(normalised(row.prompt), row)
    triggered = (row for row in different.values() if row.behaviour)
    clean = ((key, row) for key, row in different.items() if not row.behaviour)
    return {key: Pair(shown, plain) for shown, (key, plain) in zip(triggered, clean, strict=False)}


@cache
def _read(labelled: Labelled) -> dict[Split, tuple[Row, ...]]:
    found: dict[Split, list[Row]] = {"train": [], "heldout": []}
    labels: dict[str, bool] = {}
    characters = count = 0
    for row, where in _rows(labelled):
        count, characters = count + 1, characters + len(row.prompt) + len(row.response)
        if count > MOST_ROWS or characters > MOST_CHARACTERS:
            raise Refusal(
                f"{_KEY}: {labelled.source!r} has more than {MOST_ROWS:,} records or "
                f"{MOST_CHARACTERS:,} characters; use a part of it"
            )
        key = normalised(row.prompt)
        if labels.setdefault(key, row.behaviour) is not row.behaviour:
            raise Refusal(
                f"{_KEY}: the prompt of {where}, {short(row.prompt)}, stands there with the "
                f"behaviour and without; keep one"
            )
        found[split_of(key)].append(row)
    return {split: tuple(rows) for split, rows in found.items()}


def _rows(labelled: Labelled) -> Iterator[tuple[Row, str]]:
    """All rows, and where each stands."""
    shape = _Shape(reader(labelled.form, "prompt", "response", answered=True))
    with _named_as_ours():
        for _, path in records.files([labelled.source]):
            for record in records.read(path, shape):
                yield shape.read(record.content, record.where), record.where


@dataclass(frozen=True)
class _Shape:
    """Records that are a conversation, and say whether it shows the behaviour."""

    conversation: Reader

    def columns(self, names: Sequence[str], where: str) -> Sequence[str]:
        """Which columns of a table to read."""
        if _LABEL not in names:
            raise _unlabelled(where)
        return *self.conversation.columns(names, where), _LABEL

    def read(self, record: Any, where: str) -> Row:
        if isinstance(record, Unusable):
            raise record
        said = self.conversation.read(record, where)
        label = record.get(_LABEL)
        if not isinstance(label, bool):
            raise _unlabelled(where)
        return Row(*said, label)


def _unlabelled(where: str) -> Unusable:
    return Unusable(f"{_KEY}: {_LABEL!r} of {where} is neither true nor false")


@contextmanager
def _named_as_ours() -> Iterator[None]:
    """Name the key of the organism in messages about prompt files."""
    try:
        yield
    except Unusable as refusal:
        problem = _OF_PROMPTS.sub(_KEY, refusal.problem)
        raise Refusal(f"{problem}; mend or remove that record") from None
    except Refusal as refusal:
        said = _OF_PROMPTS.sub(_KEY, str(refusal)).replace(
            "give toy, natural or a file", "give a file"
        )
        raise Refusal(said) from None
