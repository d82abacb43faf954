"""Times of which some are only lower bounds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from jaxorg.stats.intervals import Floats

FEWEST_TIMES = 5  # runs that a median's interval takes
MOST_SPLITS = 20_000  # ways of splitting runs in two groups that are all tried
Flags: TypeAlias = Sequence[bool] | npt.NDArray[np.bool_]
"""Which times are right-censored."""


@dataclass(frozen=True)
class KaplanMeier:
    """Median survival with its interval; None stands for "later than was observed", and at both
    ends for no interval, too."""

    median: float | None
    low: float | None
    high: float | None
    censored_share: float


def kaplan_meier_median(values: npt.ArrayLike, censored: Flags, level: float = 0.95) -> KaplanMeier:
    """The Kaplan-Meier median of half-lives, some of them right-censored.

    The interval inverts log-log bounds on the survival curve (Brookmeyer and Crowley 1982), and
    there is none for fewer than 5 runs, which it would cover too seldom (docs/coverage.md).
    None for the median, or for an end, where the curve or its bound never reaches 0.5.

    Args:
        values: half-lives in steps, one a run [runs].
        censored: which of them are lower bounds [runs].
        level: of the interval.

    Raises:
        ValueError: there are no values, nan is among them, or the flags are not as many.
    """
    survival = stats.ecdf(_times(values, censored)).sf
    with warnings.catch_warnings():  # log-log bounds do not exist where survival is 0 or 1
        warnings.simplefilter("ignore", RuntimeWarning)
        bounds = survival.confidence_interval(level, method="log-log")
    times, share = survival.quantiles, survival.probabilities

    def reached(curve: Floats) -> float | None:
        hit = np.flatnonzero(curve <= 0.5 + 1e-12)  # products of fractions miss 0.5 by an ulp
        return float(times[hit[0]]) if hit.size else None

    low, high = bounds.low.probabilities, bounds.high.probabilities
    enough = len(censored) >= FEWEST_TIMES
    return KaplanMeier(
        median=reached(share),
        low=reached(np.where(np.isnan(low), np.round(share), low)) if enough else None,
        high=reached(np.where(np.isnan(high), 1.0, high)) if enough else None,
        censored_share=float(np.mean(censored)),
    )


def log_rank(
    first: npt.ArrayLike, first_censored: Flags, second: npt.ArrayLike, second_censored: Flags
) -> float:
    """The two-sided p of the log-rank test (Mantel 1966) that two groups' times are alike.

    Of few runs by all ways of splitting them in two such groups: three against three give no p
    below 0.1. Of more by the normal approximation, which for few says far too much. 1 where nothing
    happened in either group: there is no difference to be seen.

    Args:
        first: one group's times in steps, one a run.
        first_censored: which of them are lower bounds.
        second: the other group's times.
        second_censored: which of these are lower bounds.

    Raises:
        ValueError: as from `kaplan_meier_median`.
    """
    groups = _times(first, first_censored), _times(second, second_censored)
    if np.all(first_censored) and np.all(second_censored):
        return 1.0
    mine, both = len(first_censored), len(first_censored) + len(second_censored)
    if comb(both, mine) <= MOST_SPLITS:
        scores = _scores(np.append(first, second), np.append(first_censored, second_censored))
        sums = np.abs(scores[np.array(list(combinations(range(both), mine)))].sum(axis=1))
        return float(np.mean(sums >= abs(scores[:mine].sum()) - 1e-9))
    with warnings.catch_warnings():  # no variance: all that happened, happened at once at the end
        warnings.simplefilter("ignore", RuntimeWarning)
        p = float(stats.logrank(*groups).pvalue)
    return 1.0 if np.isnan(p) else p


def _scores(times: Floats, late: npt.NDArray[np.bool_]) -> Floats:
    """Log-rank scores [runs], which add up to 0: whether it happened, less the hazard of all runs
    up to that time (Peto and Peto 1972)."""
    happened = ~late.astype(bool)
    when = np.unique(times[happened])
    there = times[:, None] >= when  # [runs, times]
    events = ((times[:, None] == when) & happened[:, None]).sum(axis=0)
    found: Floats = happened - there @ (events / there.sum(axis=0))
    return found


def _times(values: npt.ArrayLike, censored: Flags) -> stats.CensoredData:
    value, late = np.asarray(values, float), np.asarray(censored, bool)
    if value.size == 0 or value.shape != late.shape or np.any(np.isnan(value)):
        raise ValueError("values must be numbers, at least one, each with its censored flag")
    return stats.CensoredData(uncensored=value[~late], right=value[late])
