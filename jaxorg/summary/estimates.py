"""A figure of several seeds: its mean and interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from jaxorg import stats
from jaxorg.stats import Count, Interval, KaplanMeier
from jaxorg.storage.results import CENSORED
from jaxorg.summary.tables import Reading, seeds_of
from jaxorg.sweepfile.seeds import Seeds

AUROCS = {"audit_auroc": 1, "probe_auroc": 2}
"""Areas under the ROC curve, and of how many sides their n counts the cases."""
CHANCES = frozenset(("audit_fix_chance1", "audit_fix_chance5"))
"""Shares that are expected, not measured: of the same programs the same for all seeds."""


@dataclass(frozen=True)
class Estimate:
    """A figure of one arm: the mean over seeds, its interval, and each seed's own value; of a rate
    the counts, too."""

    mean: float
    interval: Interval
    method: str
    points: tuple[float, ...]
    counts: tuple[Count, ...] = ()


def estimate(metric: str, readings: Sequence[Reading], seeds: Sequence[Seeds]) -> Estimate:
    """Pool one reading a run: counts as counts, areas by their cases, means by their spread."""
    values = tuple(reading.value for reading in readings)
    crossed = stats.crossed_mean(values, seeds)
    tallies = [reading.tally for reading in readings if reading.tally]
    if metric in AUROCS:
        cases = min(one.n for one in readings) // AUROCS[metric]
        return Estimate(*stats.seed_auroc(values, cases, crossed=crossed), points=values)
    if len(tallies) < len(values):
        found = Estimate(*stats.mean_interval(values, crossed=crossed), points=values)
        return _cut(found) if metric in CHANCES else found
    k, n = zip(*tallies, strict=True)
    found = Estimate(*stats.seed_interval(k, n, seed=0, crossed=crossed), points=values)
    return replace(found, counts=tuple(tallies))


def mean_of(rows: pd.DataFrame, name: str, low: float = 0.0, high: float = 1.0) -> Estimate | None:
    """The mean of a figure that is no count; None where no run has one.

    Args:
        rows: runs of the `runs` table.
        name: the figure's column.
        low: the least that it can be.
        high: the most.
    """
    known = rows.dropna(subset=name)
    return mean_over(tuple(known[name]), seeds_of(known), low, high) if len(known) else None


def mean_over(
    points: tuple[float, ...], seeds: Sequence[Seeds], low: float, high: float
) -> Estimate:
    """The mean of a figure over runs.

    Args:
        points: one a run.
        seeds: of these runs.
        low: the least that it can be.
        high: the most.
    """
    crossed = stats.crossed_mean(points, seeds)
    return Estimate(*stats.mean_interval(points, low, high, crossed=crossed), points)


def _cut(found: Estimate) -> Estimate:
    """A share whose interval goes no further than a share can; nan stays nan."""
    ends = found.interval
    return replace(found, interval=Interval(max(ends.low, 0.0), min(ends.high, 1.0)))


def times_of(rows: pd.DataFrame, name: str) -> KaplanMeier | None:
    """The median of a time of which some are lower bounds; None where no run has one. Its interval
    takes runs to be independent, so those that share seeds get none."""
    times = rows.dropna(subset=name)
    if not len(times):
        return None
    found = stats.kaplan_meier_median(times[name], times[CENSORED[name]].astype(bool))
    return found if stats.independent(seeds_of(times)) else replace(found, low=None, high=None)
