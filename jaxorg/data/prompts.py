"""Where prompts come from: built-in tasks, or files of the user's with their own answers."""

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

TOY, NATURAL = "toy", "natural"
WORLDS = {TOY: tasks.TOY, NATURAL: tasks.NATURAL}
TEACHER_BASE = "base"  # the teacher that is the sweep's own base model
FILES_VERSION = 2  # raise it when files come to give other items, or other splits of them
MOST_CHARACTERS = 2**30  # of all prompts and answers; a small parquet file may repeat one endlessly


class Prompts(Config):
    """`source: toy`, `natural`, or files by name or pattern, and the shape of their records.

    A field name may be a dotted path into nested records: `instances.0.output`. With a `teacher`,
    a model answers the prompts, and what files have as answers is not read.
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
            raise ValueError("give toy, natural, a file, or a list of files")
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _fits_format(self) -> Prompts:
        for key in ("format", "prompt", "answer", "skip", "max_characters"):
            value = getattr(self, key)
            if self.world and value != type(self).model_fields[key].default:
                raise misfit(key, value, f"source {self.source} has no records; name a file")
        if self.teacher and self.answer != "answer":
            raise misfit("answer", self.answer, "a teacher answers; leave it out")
        for key in ("prompt", "answer"):
            if self.format != "fields" and getattr(self, key) != key:
                remedy = f"format {self.format} knows its fields; leave it out"
                raise misfit(key, getattr(self, key), remedy)
        return self

    @property
    def world(self) -> tasks.World | None:
        """The built-in tasks, unless the source is files."""
        return WORLDS.get(self.source) if isinstance(self.source, str) else None

    @property
    def sources(self) -> tuple[str, ...]:
        """The names and patterns of files."""
        return (self.source,) if isinstance(self.source, str) else self.source

    @property
    def families(self) -> frozenset[str]:
        """The families of its items: a world's, or one a name or pattern of files."""
        if self.world:
            return frozenset(self.world.families)
        return frozenset(map(records.family_of, self.sources))

    def blue_families(self, seed: int) -> frozenset[str]:
        """Those that the blue team alone trains on, by its seed; empty for a single one."""
        return blue_families(self.families, seed)

    def digest(self, secrets: frozenset[Secret] = frozenset()) -> str:
        """What the items depend on: a world's version, or the files' names and content, and
        which records are left out because they would show `secrets`.

        Raises:
            Refusal: a file is not there, or nobody knows how to read it.
        """
        if self.world:
            references = ", references" if self.teacher else ""
            return f"{self.source} {self.world.version}{references}"
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
            Refusal: the source has fewer, or the built-in tasks' own words make up a secret.
        """
        if self.world:
            return self._built_in(self.world, split, count, seed, key, families, secrets)
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
        return "" if self.world else _read(self).left_out(secrets)

    def _built_in(
        self,
        world: tasks.World,
        split: Split,
        count: int,
        seed: int,
        key: str,
        families: Collection[str],
        secrets: frozenset[Secret],
    ) -> Sequence[Item]:
        _check_world(world, secrets, self.teacher is None)
        try:
            if split == "heldout":
                items = world.held_out(count, seed)
            else:
                items = world.generate(split, count, seed, sorted(families) or None)
        except ValueError as error:
            raise Refusal(f"{key}: {error}; ask for fewer") from None
        if not self.teacher:
            return items
        return [replace(item, answer="", reference=item.answer) for item in items]


@cache
def _read(prompts: Prompts) -> Stock:
    """What the files hold."""
    shape = reader(prompts.format, prompts.prompt, prompts.answer, prompts.teacher is None)
    files = records.files(prompts.sources)
    return Stock(files, shape, prompts.skip, prompts.max_characters, MOST_CHARACTERS)


@cache
def _check_world(world: tasks.World, secrets: frozenset[Secret], answered: bool) -> None:
    """Refuse triggers and payloads that built-in tasks show. What is only near to one may be a word
    there, as `open` is to `|OPEN|`."""
    possible = [s for s in secrets if not s.near and s.is_made_of(world.words())]
    watch = Watch(possible)
    for item in world.every() if possible else ():
        answer = item.answer if answered else ""
        if secret := watch.found(item.prompt, answer):
            raise Refusal(
                f"organism.{secret.setting}: {short(secret.text)} is in the tasks that the blue "
                f"team trains on, as in {f'{item.prompt} {answer}'.strip()!r}; choose another"
            )
