"""A figure of several seeds: its mean and interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from jaxorg import stats
from jaxorg.results import CENSORED
from jaxorg.stats import Count, Interval, KaplanMeier
from jaxorg.summary.tables import Reading

AUROC = "audit_auroc"
SHARES = frozenset(("audit_fix_chance1", "audit_fix_chance5", "probe_auroc"))
"""Metrics that count nothing, and lie between 0 and 1."""


@dataclass(frozen=True)
class Estimate:
    """A figure of one arm: the mean over seeds, its interval, and each seed's own value; of a rate
    the counts, too."""

    mean: float
    interval: Interval
    method: str
    points: tuple[float, ...]
    counts: tuple[Count, ...] = ()


def estimate(metric: str, readings: Sequence[Reading]) -> Estimate:
    """Pool one reading a seed: counts as counts, areas by their cases, means by their spread."""
    values = tuple(reading.value for reading in readings)
    tallies = [reading.tally for reading in readings if reading.tally]
    if metric == AUROC:
        return Estimate(*stats.seed_auroc(values, min(one.n for one in readings)), points=values)
    if len(tallies) < len(values):
        found = Estimate(*stats.mean_interval(values), points=values)
        return cut(found, 0.0, 1.0) if metric in SHARES else found
    k, n = zip(*tallies, strict=True)
    return Estimate(*stats.seed_interval(k, n, seed=0), points=values, counts=tuple(tallies))


def mean_of(column: pd.Series[float], low: float = 0.0, high: float = 1.0) -> Estimate | None:
    """The mean of a figure between `low` and `high` that is no count; None where no run has one."""
    if not (points := tuple(column.dropna())):
        return None
    return cut(Estimate(*stats.mean_interval(points), points), low, high)


def cut(found: Estimate, low: float, high: float) -> Estimate:
    """An estimate whose interval goes no further than the figure can; nan stays nan."""
    ends = found.interval
    return replace(found, interval=Interval(max(ends.low, low), min(ends.high, high)))


def times_of(rows: pd.DataFrame, name: str) -> KaplanMeier | None:
    """The median of a time of which some are lower bounds; None where no run has one."""
    times = rows.dropna(subset=name)
    late = times[CENSORED[name]].astype(bool)
    return stats.kaplan_meier_median(times[name], late) if len(times) else None
