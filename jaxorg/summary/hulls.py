"""What removal costs: for each organism, treatment and seed the hull of all that was measured.

The replicate stays the seed: the runs of one seed that differ in how long and how hard the blue
team trains pool their points, and each seed has one figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from jaxorg import stats
from jaxorg.evaluators.base import ALONG, HALVES
from jaxorg.stats import Point, Robustness
from jaxorg.storage.results import ATTACK, CAPABILITY
from jaxorg.summary.estimates import SHARE, Estimate, mean_over
from jaxorg.summary.tables import History, Metric, grid_fields, seeds_of, text
from jaxorg.summary.teams import Teams
from jaxorg.sweepfile.prereg import GROUP_FIGURES, pooled
from jaxorg.sweepfile.seeds import Seeds

Settings = Mapping[str, Any]
"""What the runs of a group have in common: the grid's values by path, where they are not pooled."""


@dataclass(frozen=True)
class Group:
    """One seed of an organism under a treatment: where the treatment took it.

    `points` are all measured models by the prompts that are measured at every step, `front` those
    of them on the hull; the figures are by halves of the prompts, and None where these are too few.
    """

    organism: str
    treatment: str
    control: str
    seeds: Seeds
    settings: Settings
    points: tuple[Point, ...]
    front: tuple[Point, ...]
    robustness: Robustness | None

    @property
    def figures(self) -> dict[str, float]:
        """The figures by name."""
        if self.robustness is None:
            return {}
        values = (self.robustness.hull_auc, *self.robustness.left)
        return dict(zip(GROUP_FIGURES, values, strict=True))


@dataclass(frozen=True)
class Hull:
    """An organism under a treatment: the figures over seeds."""

    organism: str
    treatment: str
    groups: tuple[Group, ...]
    figures: Mapping[str, Estimate]


def groups_of(
    runs: pd.DataFrame, histories: Mapping[str, History], grid: Sequence[Mapping[str, Any]] = ()
) -> list[Group]:
    """The groups of the runs that are done and treated, in the order of the runs."""
    fields = fields_of(runs, grid)
    teams = Teams.of(runs, fields)
    found: dict[tuple[str, Seeds], tuple[dict[str, Any], list[History]]] = {}
    done = runs[runs.status == "done"]
    for row, seeds in zip(done.to_dict("records"), seeds_of(done), strict=True):
        history = histories.get(row["run_id"], {})
        if "treatment" in history and row["installed"] is True:
            found.setdefault((teams.group_key(row), seeds), (row, []))[1].append(history)
    groups = (
        _group(row, several, fields, teams, seeds) for (_, seeds), (row, several) in found.items()
    )
    return [group for group in groups if group]


def fields_of(runs: pd.DataFrame, grid: Sequence[Mapping[str, Any]]) -> list[str]:
    """The grid's fields that tell groups apart. Without the sweep's grid, each of its fields is
    taken for an axis."""
    over = pooled(grid or [{name: ()} for name in grid_fields(runs)])
    return [name for name in grid_fields(runs) if name not in over]


def hulls_of(groups: Sequence[Group]) -> tuple[Hull, ...]:
    """The groups by organism and treatment; those that no hull was found of are left out."""

    def arm(group: Group) -> tuple[str, str]:
        return group.organism, group.treatment

    order = list(dict.fromkeys(map(arm, groups)))
    arms = groupby(sorted(groups, key=lambda group: order.index(arm(group))), arm)
    return tuple(_hull(*names, list(members)) for names, members in arms)


def _group(
    row: Mapping[str, Any],
    histories: Sequence[History],
    fields: Sequence[str],
    teams: Teams,
    seeds: Seeds,
) -> Group | None:
    """None where there is nothing to take a share of."""
    pairs = [pair for history in histories for pair in _shares(history)]
    if not pairs:
        return None
    wholes = [whole for whole, _ in pairs]
    halves = [halves for _, halves in pairs if halves]
    return Group(
        organism=teams.red(row),
        treatment=teams.blue(row),
        control=text(row["control"]),
        seeds=seeds,
        settings={name: row[name] for name in fields},
        points=tuple(wholes),
        front=tuple(wholes[i] for i in stats.on_hull(wholes)),
        robustness=stats.split_half(*zip(*halves, strict=True)) if halves else None,
    )


Halves = tuple[Point, Point]


def _shares(history: History) -> list[tuple[Point, Halves | None]]:
    """Each model of a treatment by the prompts that are measured at every step and by halves of
    them, where there is something to take a share of."""
    before = {metric: readings[-1] for metric, readings in history.get("organism", {}).items()}
    rates: dict[int, dict[Metric, float]] = {}
    for metric, readings in history["treatment"].items():
        for reading in readings:
            if metric in before and before[metric].value > 0:
                share = reading.value / before[metric].value
                rates.setdefault(reading.step, {})[metric] = share
    found = []
    for _, at in sorted(rates.items()):
        if whole := _point(at, ALONG):
            first, second = (_point(at, half) for half in HALVES)
            found.append((whole, (first, second) if first and second else None))
    return found


def _point(at: Mapping[Metric, float], prompts: str) -> Point | None:
    able, attacks = (at.get((name, f"{put}:{prompts}")) for name, put in (CAPABILITY, ATTACK))
    return None if able is None or attacks is None else Point(able, attacks)


def _hull(organism: str, treatment: str, groups: Sequence[Group]) -> Hull:
    figures = {}
    for name in GROUP_FIGURES:
        known = [group for group in groups if group.figures]
        if known:
            points = tuple(group.figures[name] for group in known)
            figures[name] = mean_over(
                points, [group.seeds for group in known], SHARE, of=len(groups)
            )
    return Hull(organism, treatment, tuple(groups), figures)
