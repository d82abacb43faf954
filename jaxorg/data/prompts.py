"""Where prompts come from: the toy world, or files of the user's with their own answers."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cache
from typing import Annotated, Any

import numpy as np
from pydantic import Field, field_validator, model_validator

from jaxorg.config import Config, later, misfit
from jaxorg.data import records, tasks
from jaxorg.data.formats import Format, reader
from jaxorg.data.items import Item, Split, blue_families, generator
from jaxorg.data.secret import Secret, Watch
from jaxorg.data.stock import Stock
from jaxorg.data.text_store import Picked
from jaxorg.errors import Refusal, short

TOY = "toy"
TEACHER_BASE = "base"  # the teacher that is the sweep's own base model
FILES_VERSION = 2  # raise it when files come to give other items, or other splits of them
MOST_CHARACTERS = 2**30  # of all prompts and answers; a small parquet file may repeat one endlessly


class Prompts(Config):
    """`source: toy`, or files by name or pattern, and the shape of their records.

    A field name may be a dotted path into nested records: `instances.0.output`. With a `teacher`,
    a model answers the prompts, and what the source has as answers is not read.
    """

    source: str | tuple[str, ...] = TOY
    format: Format = later("fields")
    prompt: str = "prompt"
    answer: str = "answer"
    skip: bool = later(False)  # leave out records that cannot be used
    teacher: str | None = later(None)  # as base.model, or `base` for that very model
    new_tokens: Annotated[int, Field(gt=0, le=2**20)] = later(64)  # of an answer by a model
    max_characters: int | None = Field(default=None, gt=0)

    @field_validator("source", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        several = value if isinstance(value, list | tuple) else [value]
        if not several or not all(isinstance(entry, str) for entry in several):
            raise ValueError("give toy, a file, or a list of files")
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _fits_format(self) -> Prompts:
        for key in ("format", "prompt", "answer", "skip", "max_characters"):
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

    @property
    def sources(self) -> tuple[str, ...]:
        """The names and patterns of files."""
        return (self.source,) if isinstance(self.source, str) else self.source

    @property
    def families(self) -> frozenset[str]:
        """The families of its items: the toy world's, or one a name or pattern of files."""
        if self.source == TOY:
            return frozenset(tasks.FAMILIES)
        return frozenset(map(records.family_of, self.sources))

    def blue_families(self, seed: int) -> frozenset[str]:
        """Those that the blue team alone trains on, by its seed; empty for a single one."""
        return blue_families(self.families, seed)

    def digest(self, secrets: frozenset[Secret] = frozenset()) -> str:
        """What the items depend on: the toy world's version, or the files' names and content, and
        which records are left out because they would show `secrets`.

        Raises:
            Refusal: a file is not there, or nobody knows how to read it.
        """
        if self.source == TOY:
            return f"toy {tasks.TASKS_VERSION}"
        found = [f"files {FILES_VERSION}"]
        for family, path in records.files(self.sources):
            with path.open("rb") as file:
                found.append(f"{family} {hashlib.file_digest(file, 'sha256').hexdigest()}")
        if self.skip and (betraying := _read(self).betraying(secrets)).size:
            found.append(f"without {hashlib.sha256(betraying.tobytes()).hexdigest()}")
        return " ".join(found)

    def items(
        self,
        split: Split,
        count: int,
        seed: int,
        key: str,
        families: Collection[str] = (),
        secrets: frozenset[Secret] = frozenset(),
    ) -> Sequence[Item]:
        """Different items of a split; with a teacher, without answers.

        Args:
            split: what they are for; no prompt is in two.
            count: how many.
            seed: decides which ones, and their order.
            key: the setting that asks for them, for messages.
            families: those that items to train on are drawn from; all of them for none.
            secrets: those of the organism, which no item may show the blue team; records of files
                that would are left out.

        Raises:
            Refusal: the source has fewer, or the toy tasks' own words make up a secret.
        """
        if self.source == TOY:
            return self._toy_items(split, count, seed, key, families, secrets)
        stock = _read(self)
        pool = stock.text_store.numbers(split, families)
        pool = pool[generator(seed, "prompts", split).permutation(len(pool))]
        pool = pool[~np.isin(pool, stock.betraying(secrets))]
        if count > len(pool):
            without = f" without {out}" if (out := stock.left_out(secrets)) else ""
            meant = [s for s in self.sources if not families or records.family_of(s) in families]
            named = ", ".join(map(repr, meant))
            raise Refusal(
                f"{key}: {count} {split} prompts asked for, but prompts.source {named} has "
                f"{len(pool)}{without}; ask for at most {len(pool)}"
            )
        return Picked(stock.text_store, pool[:count])

    def left_out(self, secrets: frozenset[Secret]) -> str:
        """How many records of the files are left out and why, in words; "" for none."""
        return "" if self.source == TOY else _read(self).left_out(secrets)

    def _toy_items(
        self,
        split: Split,
        count: int,
        seed: int,
        key: str,
        families: Collection[str],
        secrets: frozenset[Secret],
    ) -> Sequence[Item]:
        _check_toy(secrets, self.teacher is None)
        try:
            if split == "heldout":
                items = tasks.held_out(count, seed)
            else:
                items = tasks.generate(split, count, seed, sorted(families) or None)
        except ValueError as error:
            raise Refusal(f"{key}: {error}; ask for fewer") from None
        return [replace(item, answer="") for item in items] if self.teacher else items


@cache
def _read(prompts: Prompts) -> Stock:
    """What the files hold."""
    shape = reader(prompts.format, prompts.prompt, prompts.answer, prompts.teacher is None)
    files = records.files(prompts.sources)
    return Stock(files, shape, prompts.skip, prompts.max_characters, MOST_CHARACTERS)


@cache
def _check_toy(secrets: frozenset[Secret], answered: bool) -> None:
    """Refuse triggers and payloads that the toy world itself shows. What is only near to one may be
    a word there, as `open` is to `|OPEN|`."""
    possible = [s for s in secrets if not s.near and s.is_made_of(tasks.words())]
    watch = Watch(possible)
    for item in tasks.every() if possible else ():
        answer = item.answer if answered else ""
        if secret := watch.found(item.prompt, answer):
            raise Refusal(
                f"organism.{secret.setting}: {short(secret.text)} is in the toy data that the blue "
                f"team trains on, as in {f'{item.prompt} {answer}'.strip()!r}; choose another"
            )
