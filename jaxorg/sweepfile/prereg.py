"""What a sweep file may claim before it is run, and what such a claim can be about."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jaxorg.config import Config, content_hash, misfit
from jaxorg.errors import short
from jaxorg.storage import results
from jaxorg.suggest import choose
from jaxorg.sweepfile.seeds import SeedCounts

GROUP_FIGURES = ("hull_auc", "left_at_5", "left_at_10")
"""Figures of all runs of a seed that share the organism and the treatment, whatever its amount."""
CONTROL = "control"
"""What a side may select besides the grid's paths: "" or a control's kind."""


class Claim(Config):
    """A comparison that is declared before it is made: `figure` is expected to be larger on the
    side `more` than on the side `less`, or, with `within`, to differ by less than that either way.
    Each side, and `where` for both, maps grid paths to one of their values."""

    claim: str = Field(min_length=1)
    source: str = ""
    figure: str
    more: dict[str, Any] = Field(min_length=1)
    less: dict[str, Any] = Field(min_length=1)
    where: dict[str, Any] = {}
    within: float | None = Field(default=None, gt=0)
    alpha: float = Field(default=0.05, gt=0, lt=1)

    @model_validator(mode="after")
    def _sides(self) -> Claim:
        if self.figure not in figures():
            raise misfit("figure", self.figure, choose(self.figure, figures()))
        if self.within is not None and (
            self.figure in results.CENSORED or not self.within < most_apart(self.figure)
        ):
            known = [name for name in figures() if name not in results.CENSORED]
            bounded = ", ".join(name for name in known if math.isfinite(most_apart(name)))
            remedy = f"give less than {self.figure} can differ by, of one of {bounded}"
            raise misfit("within", self.within, remedy)
        if not any(path in self.less and self.less[path] != self.more[path] for path in self.more):
            raise misfit("less", self.less, "give one of the paths in more another value")
        if both := {*self.more, *self.less} & {*self.where}:
            raise misfit("where", self.where, f"{min(both)} is set on a side already; keep one")
        return self

    @property
    def named(self) -> set[str]:
        """The paths on which the sides differ."""
        return {*self.more, *self.less}


def figures() -> tuple[str, ...]:
    """What a claim may be about."""
    return (*results.FIGURES, *GROUP_FIGURES)


def most_apart(figure: str) -> float:
    """The most by which two values of a figure can differ; infinite where nothing bounds it. Of
    times that may be lower bounds only which is larger is compared, as 1, -1 or 0."""
    if figure in GROUP_FIGURES or figure in results.CENSORED:
        return 1.0
    low, high = results.ENDS.get(figure, (-math.inf, math.inf))
    return float(high - low)


def pooled(grid: Iterable[Mapping[str, Any]]) -> set[str]:
    """Grid paths that are pooled in a group's figures: how long and how hard the blue team trains,
    but not which weights, all about the reversal, and labels of nothing else."""
    found: set[str] = set()
    for axis in grid:
        amounts = {path for path in axis if _of_amount(path)}
        found |= amounts
        if amounts and {*axis} - amounts == {"treatment.label"}:
            found.add("treatment.label")
    return found


def _of_amount(path: str) -> bool:
    first, _, rest = path.partition(".")
    within, _, key = rest.partition(".")
    trains = first == "treatment" and within == "train" and key.partition(".")[0] != "lora"
    return trains or first == "reversal"


def check_claims(
    claims: Sequence[Claim],
    grid: Sequence[Mapping[str, Sequence[Any]]],
    controls: Collection[str],
) -> None:
    """See that each claim is about what the grid sweeps.

    Raises:
        ValidationError: a side selects what no run has.
    """
    values = {path: list(found) for axis in grid for path, found in axis.items()}
    values[CONTROL] = ["", *controls]
    over = pooled(grid)
    for number, claim in enumerate(claims):
        for side in ("more", "less", "where"):
            for path, value in getattr(claim, side).items():
                key = f"prereg.{number}.{side}.{path}"
                if path not in values:
                    raise misfit(key, value, f"the grid does not sweep {path}; add it to the grid")
                if value not in values[path]:
                    raise misfit(key, value, f"the grid has {short(values[path])}; take one")
                if claim.figure in GROUP_FIGURES and path in over:
                    raise misfit(key, value, f"{claim.figure} is taken over all of {path}")


def unmatched(claim: Claim, grid: Iterable[Mapping[str, Any]]) -> set[str]:
    """Grid paths whose values two runs of a pair need not share: those on which the sides differ,
    and those that advance with them. A control has no organism of its own to match."""
    beside = {path for axis in grid if claim.named & {*axis} for path in axis}
    free = {path for axis in grid for path in axis if path.partition(".")[0] == "organism"}
    return beside | (free if CONTROL in claim.named else set())


def block_hash(claims: Sequence[Claim]) -> str:
    """What names a block of claims in the results; "" for none."""
    return content_hash([claim.model_dump() for claim in claims]) if claims else ""


class Declared(BaseModel):
    """What a sweep's source, as its folder keeps it, says of its claims."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    prereg: list[Claim] = []
    grid: list[dict[str, list[Any]]] = []
    seeds: SeedCounts = 1
    first_seed: int = 0
