"""Tables of estimates with some rows for each arm: what the page's sections are made of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, TypeAlias

from jaxorg.summary import Arm, Estimate, Metric

LONG = 30  # rows of a table that is folded until a reader opens it


class Figure(NamedTuple):
    """What stands in a cell: a rate in percent, or another mean by its own scale and decimals."""

    phase: str
    metric: Metric
    scale: int = 100
    digits: int = 1


class Line(NamedTuple):
    """A row that each arm has, if anything in it was measured: a figure a column."""

    name: str
    figures: Sequence[Figure]


class Column(NamedTuple):
    """A column's title; neighbours of one group stand under its name."""

    title: str
    group: str = ""


class Cell(NamedTuple):
    """An estimate as it is shown; None where nothing was measured. `mark` says that a judge
    decided."""

    estimate: Estimate | None
    scale: int
    digits: int
    mark: str


@dataclass(frozen=True)
class Row:
    """A row of one arm."""

    name: str
    cells: tuple[Cell, ...]

    @property
    def seeds(self) -> str:
        """`3`, or `2 to 3`: how many seeds the cells are of."""
        counts = sorted({len(cell.estimate.points) for cell in self.cells if cell.estimate})
        return " to ".join(map(str, {counts[0]: 0, counts[-1]: 0}))


@dataclass(frozen=True)
class Grid:
    """A table: some rows for each arm. `what` heads the column of their names."""

    what: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[Row, ...]], ...]

    @property
    def groups(self) -> list[tuple[str, tuple[Column, ...]]]:
        """Neighbouring columns by the name that stands above them, if one does."""
        found = groupby(self.columns, lambda column: column.group)
        return [(name, tuple(columns)) for name, columns in found]

    @property
    def long(self) -> bool:
        """Whether it would push everything below it out of sight."""
        return sum(len(rows) for _, rows in self.rows) > LONG


Find: TypeAlias = Callable[[Arm, str, Metric], Estimate | None]


def grid_of(
    arms: Sequence[Arm],
    what: str,
    columns: Iterable[Column],
    lines: Sequence[Line],
    find: Find = Arm.final,
    baselines: int = 0,
) -> Grid:
    """The lines of each arm that measured any of their figures.

    Args:
        arms: in the order in which they are shown.
        what: what the grid shows, as its heading.
        columns: one for each figure of a line.
        lines: rows that an arm may have.
        find: an arm's estimate of a metric in a phase.
        baselines: how many figures of a line, its first ones, are only compared with, and make no
            row by themselves.
    """
    rows = []
    for arm in arms:
        found = (Row(line.name, tuple(_cells(arm, line, find))) for line in lines)
        shown = (row for row in found if any(cell.estimate for cell in row.cells[baselines:]))
        if measured := tuple(shown):
            rows.append((arm.label, measured))
    return Grid(what, tuple(columns), tuple(rows))


def after(phases: Sequence[str], metrics: Sequence[Metric]) -> list[Line]:
    """A line a phase, with rates at its end."""
    return [Line(phase, [Figure(phase, metric) for metric in metrics]) for phase in phases]


def conditions(arms: Sequence[Arm], metrics: Collection[str], prefix: str = "") -> list[str]:
    """The conditions that metrics were measured under, less what they all begin with. Numbers in
    them are in order of size."""
    found = {
        condition.removeprefix(prefix)
        for arm in arms
        for measured in (*arm.finals.values(), *arm.notes.values())
        for name, condition in measured
        if name in metrics and condition.startswith(prefix)
    }
    return sorted(found, key=_by_number)


def _by_number(text: str) -> list[tuple[float, str]]:
    return [_as_number(part) for part in text.split(":")]


def _as_number(text: str) -> tuple[float, str]:
    try:
        return float(text), ""
    except ValueError:
        return float("inf"), text


def _cells(arm: Arm, line: Line, find: Find) -> Iterator[Cell]:
    for phase, metric, scale, digits in line.figures:
        yield Cell(find(arm, phase, metric), scale, digits, arm.mark(metric))
