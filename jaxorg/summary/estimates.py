"""A figure of several seeds: its mean and interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from jaxorg import stats
from jaxorg.stats import Count, Interval, KaplanMeier
from jaxorg.storage.results import CENSORED, ENDS
from jaxorg.summary.tables import Reading, seeds_of
from jaxorg.sweepfile.seeds import Seeds

AUROCS = {"audit_auroc": 1, "probe_auroc": 2}
"""Areas under the ROC curve, and of how many sides their n counts the cases."""
CHANCES = frozenset(("audit_fix_chance1", "audit_fix_chance5"))
"""Shares that are expected, not measured: of the same programs the same for all seeds."""
SHARE, ANYTHING = (0.0, 1.0), (float("-inf"), float("inf"))
"""Ends of figures."""


@dataclass(frozen=True)
class Estimate:
    """A figure of one arm: the mean over seeds, its interval, and each seed's own value; of a rate
    the counts, too. `of` is how many finished seeds the arm has: some may lack the figure."""

    mean: float
    interval: Interval
    method: str
    points: tuple[float, ...]
    counts: tuple[Count, ...] = ()
    of: int = 0

    @property
    def lacking(self) -> bool:
        """Whether it is of fewer seeds than the arm has."""
        return len(self.points) < self.of


def estimate(metric: str, found: Sequence[tuple[Reading, Seeds]], of: int) -> Estimate:
    """Pool one reading a run: counts as counts, areas by their cases, means as they are.

    Args:
        metric: what was measured.
        found: of each run the reading and its seeds.
        of: how many runs there are, those without the metric among them.
    """
    readings, seeds = zip(*found, strict=True)
    values = tuple(reading.value for reading in readings)
    crossed = stats.crossed_mean(values, seeds)
    tallies = [reading.tally for reading in readings if reading.tally]
    if metric in AUROCS:
        cases = min(one.n for one in readings) // AUROCS[metric]
        return Estimate(*stats.seed_auroc(values, cases, crossed=crossed), points=values, of=of)
    if len(tallies) < len(values):
        ends = SHARE if metric in CHANCES else ANYTHING
        return mean_over(values, seeds, ends, of)
    k, n = zip(*tallies, strict=True)
    pooled = stats.seed_interval(k, n, crossed=crossed)
    return Estimate(*pooled, points=values, counts=tuple(tallies), of=of)


def mean_of(rows: pd.DataFrame, name: str) -> Estimate | None:
    """The mean of a figure that is no count; None where no run has one.

    Args:
        rows: runs of the `runs` table.
        name: the figure's column.
    """
    known = rows.dropna(subset=name)
    if not len(known):
        return None
    return mean_over(tuple(known[name]), seeds_of(known), ENDS.get(name, ANYTHING), len(rows))


def mean_over(
    points: tuple[float, ...], seeds: Sequence[Seeds], ends: tuple[float, float], of: int
) -> Estimate:
    """The mean of a figure over runs.

    Args:
        points: one a run.
        seeds: of these runs.
        ends: the least and the most that it can be.
        of: how many runs there are, those without the figure among them.
    """
    crossed = stats.crossed_mean(points, seeds)
    return Estimate(*stats.mean_interval(points, *ends, crossed=crossed), points, of=of)


def times_of(rows: pd.DataFrame, name: str) -> KaplanMeier | None:
    """The median of a time of which some are lower bounds; None where no run has one. Its interval
    takes runs to be independent, so those that share seeds get none."""
    times = rows.dropna(subset=name)
    if not len(times):
        return None
    found = stats.kaplan_meier_median(times[name], times[CENSORED[name]].astype(bool))
    return found if stats.independent(seeds_of(times)) else replace(found, low=None, high=None)
