"""The seeds of a sweep's runs: one for all phases of a run, or one each for base, organism and
treatment, which are crossed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple, TypeAlias

from pydantic import Field, PlainValidator, TypeAdapter

from jaxorg.config import Config
from jaxorg.sweepfile.labels import Kind

MOST_RUNS = 10_000
_Count = Annotated[int, Field(strict=True, gt=0, le=MOST_RUNS)]


class Seeds(NamedTuple):
    """The seeds of one run. A teacher has its organism's, a reversal its treatment's."""

    base: int  # 0 of a base that is not trained
    organism: int
    treatment: int

    def of(self, kind: Kind) -> int:
        """The seed of a phase of this kind."""
        if kind in ("treatment", "reversal"):
            return self.treatment
        return self.base if kind == "base" else self.organism

    @property
    def crossed(self) -> bool:
        """Whether its organism and its treatment have different ones."""
        return self.organism != self.treatment


class CrossedSeeds(Config):
    """How many bases, organisms on each of them, and treatment seeds of each organism."""

    base: _Count = 1
    organism: _Count = 1
    treatment: _Count = 1

    @property
    def shared(self) -> bool:
        """Whether runs share a seed, and so are not independent."""
        return sum(count > 1 for count in (self.base, self.organism, self.treatment)) > 1


def _read(value: Any) -> int | CrossedSeeds:
    """A number of seeds, or a mapping of such numbers; its own mistakes keep their keys."""
    if isinstance(value, Mapping | CrossedSeeds):
        return CrossedSeeds.model_validate(value)
    return _NUMBER.validate_python(value)


_NUMBER: TypeAdapter[int] = TypeAdapter(_Count)
SeedCounts: TypeAlias = Annotated[int | CrossedSeeds, PlainValidator(_read)]
"""`seeds` in a sweep file: a number, or how many of each are crossed."""


def count_of(counts: int | CrossedSeeds) -> int:
    """How many runs a point of the grid has."""
    if isinstance(counts, int):
        return counts
    return counts.base * counts.organism * counts.treatment


def seeds_of(counts: int | CrossedSeeds, first: int) -> Iterator[Seeds]:
    """The seeds of each run of a point of the grid, numbered from `first` on.

    Organisms are numbered through, over all bases: no two of them share draws. Treatment seeds are
    the same for every organism; where there is one of each, it has the organism's number.
    """
    if isinstance(counts, int):
        for seed in range(first, first + counts):
            yield Seeds(seed, seed, seed)
        return
    for organism in range(counts.base * counts.organism):
        for treatment in range(counts.treatment):
            base, own = organism // counts.organism, counts.treatment == 1
            yield Seeds(first + base, first + organism, first + (organism if own else treatment))


def design_text(counts: int | CrossedSeeds) -> str:
    """`8`, or `2×4×4`: bases, organisms of each, and treatment seeds."""
    if isinstance(counts, int):
        return str(counts)
    return f"{counts.base}×{counts.organism}×{counts.treatment}"
