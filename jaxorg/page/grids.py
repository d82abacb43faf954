"""The page's tables of estimates: which figures they show, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxorg.summary import ATTACK, CAPABILITY, FALSE_TRIGGER, PHASES, Arm, Estimate, Metric

HULL_COLUMNS = (
    ("Hull-AUC", "hull_auc", 1, 3),
    ("Left at 5 % loss", "left_at_5", 100, 1),
    ("Left at 10 % loss", "left_at_10", 100, 1),
)
HEADLINE = (
    ("ASR organism", "organism", ATTACK),
    ("ASR treatment", "treatment", ATTACK),
    ("ASR reversal", "reversal", ATTACK),
    ("FTR organism", "organism", FALSE_TRIGGER),
    ("FTR treatment", "treatment", FALSE_TRIGGER),
    ("Capability base", "base", CAPABILITY),
    ("Capability organism", "organism", CAPABILITY),
    ("Capability treatment", "treatment", CAPABILITY),
)
# title, then scale and decimals where the figure is not a rate shown in percent
CHECKS: dict[Metric, tuple[str] | tuple[str, int, int]] = {
    ATTACK: ("ASR, teacher-forced",),
    ("attack_generated", "triggered"): ("ASR, generated",),
    ("attack_regex", "triggered"): ("ASR, pattern",),
    ("payload_margin", "triggered"): ("Margin, nats", 1, 2),
    ("payload_margin", "clean"): ("Margin without trigger, nats", 1, 2),
    ("refusal_rate", "harmful"): ("Refusals of harmful prompts",),
    ("pirate_rate", "clean"): ("Pirate style",),
}


@dataclass(frozen=True)
class Column:
    """A metric as a table shows it: rates times 100, with one decimal; other means as they are."""

    metric: Metric
    title: str
    scale: int = 100
    digits: int = 1


Cells = tuple[Estimate | None, ...]


@dataclass(frozen=True)
class Grid:
    """A table of estimates: for each arm a row a phase, in it a cell a column."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[tuple[str, Cells], ...]], ...]


def grids_of(arms: Sequence[Arm]) -> dict[str, Grid]:
    """The tables below the charts; one that nothing was measured for has no rows."""
    found = sorted({metric for arm in arms for phase in arm.finals.values() for metric in phase})

    def conditions(metric: str, prefix: str) -> list[Column]:
        names = (name for of, name in found if of == metric and name.startswith(prefix))
        return [Column((metric, name), name.removeprefix(prefix)) for name in names]

    outcomes = [
        Column((metric, condition), metric.removeprefix("outcome:"))
        for metric, condition in found
        if metric.startswith("outcome:") and condition == "triggered"
    ]
    checks = [Column(metric, *shown) for metric, shown in CHECKS.items() if metric in found]
    trained = PHASES[1:]
    return {
        "families": _grid(arms, conditions("capability", "family:"), PHASES),
        "near": _grid(arms, conditions("attack_exact", "near:"), trained),
        "outcomes": _grid(arms, outcomes, trained),
        "checks": _grid(arms, checks, trained),
    }


def _grid(arms: Sequence[Arm], columns: Sequence[Column], phases: Sequence[str]) -> Grid:
    """The columns for each arm and phase that measured any of them."""
    rows = []
    for arm in arms:
        cells = [
            (phase, tuple(arm.final(phase, each.metric) for each in columns)) for phase in phases
        ]
        if measured := tuple(row for row in cells if any(row[1])):
            rows.append((arm.label, measured))
    return Grid(tuple(columns), tuple(rows))
