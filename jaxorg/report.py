"""The door `python -m jaxorg.report DIR`: one self-contained page from a folder of parquet."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Annotated

import jinja2
import typer

from jaxorg.cli import run
from jaxorg.plots import DARK, DASHES, LIGHT, PER_PANEL, Theme, curves_svg
from jaxorg.runtime import Refusal
from jaxorg.summary import (
    ATTACK,
    CAPABILITY,
    FALSE_TRIGGER,
    NOT_INSTALLED,
    NOT_TREATED,
    PHASES,
    Arm,
    Curve,
    Estimate,
    Metric,
    Summary,
    summarise,
)
from jaxorg.summary.words import seeds_text, steps_text, verdict_text
from jaxorg.visible import visible

VERDICTS = (
    *("removed", "suppressed", "reduced", "persists", "collapsed"),
    *(NOT_TREATED, NOT_INSTALLED),
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
class Panel:
    """One chart with its title and the arms of its lines, in the order of their colours."""

    title: str
    arms: tuple[str, ...]
    light: str
    dark: str


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


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the folder of a sweep's results")],
) -> None:
    """Write DIR/report.html from the parquet tables in DIR, and nothing else.

    Raises Refusal where DIR is missing, holds no results, or results of another schema, and
    where matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise Refusal("report: matplotlib is not installed; pip install 'jaxorg[report]'")
    page = folder / "report.html"
    text = render(summarise(folder))
    beside = page.with_suffix(".html.tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, page)
    print(page)


def render(summary: Summary) -> str:
    """The page as text; equal summaries give equal bytes."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sha256"] = _sha256
    for show in (steps_text, seeds_text, verdict_text):
        environment.filters[show.__name__] = show
    seeds = sorted({arm.seeds for arm in summary.arms})
    return environment.get_template("report.html.j2").render(
        summary=summary,
        seeds=f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}",
        counts=sorted({count for arm in summary.arms for count in arm.verdicts.values()}),
        totals=sum((arm.verdicts for arm in summary.arms), Counter[str]()),
        headline=HEADLINE,
        panels={phase: _panels(curves) for phase, curves in summary.curves.items()},
        grids=_grids(summary.arms),
        verdicts=VERDICTS,
        dashes=DASHES,
        themes={"light": LIGHT, "dark": DARK},
    )


def _shown(value: object) -> object:
    """What the page makes of every value before it escapes it."""
    if isinstance(value, str) and not hasattr(value, "__html__"):  # markup has been through here
        return visible(value)
    return value


def _sha256(text: str) -> str:
    """The hash by which the page's policy knows its style."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _panels(curves: Sequence[Curve]) -> list[Panel]:
    """One panel a treatment, or several where it has more arms than a panel has colours."""
    panels = []
    for group, members in groupby(sorted(curves, key=lambda each: each.group), lambda c: c.group):
        lines = list(members)
        parts = [lines[i : i + PER_PANEL] for i in range(0, len(lines), PER_PANEL)]
        for number, part in enumerate(parts, 1):
            title = group or "all arms"
            panels.append(
                Panel(
                    title=title if len(parts) == 1 else f"{title} ({number} of {len(parts)})",
                    arms=tuple(curve.arm for curve in part),
                    light=_data_url(part, LIGHT),
                    dark=_data_url(part, DARK),
                )
            )
    return panels


def _data_url(curves: Sequence[Curve], theme: Theme) -> str:
    coded = base64.b64encode(curves_svg(curves, theme).encode()).decode()
    return f"data:image/svg+xml;base64,{coded}"


def _grids(arms: Sequence[Arm]) -> dict[str, Grid]:
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


if __name__ == "__main__":
    run(report)
