"""A figure of several seeds: its mean and interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from jaxorg import stats
from jaxorg.results import CENSORED
from jaxorg.stats import Interval, KaplanMeier
from jaxorg.summary.tables import Reading


@dataclass(frozen=True)
class Estimate:
    """A figure of one arm: the mean over seeds, its interval, and each seed's own value."""

    mean: float
    interval: Interval
    method: str
    points: tuple[float, ...]


def estimate(readings: Sequence[Reading]) -> Estimate:
    """Pool one reading a seed: counts as counts, means by their spread."""
    values = tuple(reading.value for reading in readings)
    tallies = [reading.tally for reading in readings if reading.tally]
    if len(tallies) < len(values):
        return Estimate(*stats.mean_interval(values), points=values)
    k, n = zip(*tallies, strict=True)
    return Estimate(*stats.seed_interval(k, n, seed=0), points=values)


def mean_of(column: pd.Series[float], low: float = 0.0, high: float = 1.0) -> Estimate | None:
    """The mean of a figure between `low` and `high` that is no count; None where no run has one."""
    if not (points := tuple(column.dropna())):
        return None
    mean, found, method = stats.mean_interval(points)
    return Estimate(mean, Interval(max(found.low, low), min(found.high, high)), method, points)


def times_of(rows: pd.DataFrame, name: str) -> KaplanMeier | None:
    """The median of a time of which some are lower bounds; None where no run has one."""
    times = rows.dropna(subset=name)
    late = times[CENSORED[name]].astype(bool)
    return stats.kaplan_meier_median(times[name], late) if len(times) else None
