"""Times of which some are only lower bounds."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from jaxorg.stats.intervals import Floats

Flags: TypeAlias = Sequence[bool] | npt.NDArray[np.bool_]
"""Which times are right-censored."""


@dataclass(frozen=True)
class KaplanMeier:
    """Median survival with its interval; None stands for "later than was observed"."""

    median: float | None
    low: float | None
    high: float | None
    censored_share: float


def kaplan_meier_median(values: npt.ArrayLike, censored: Flags, level: float = 0.95) -> KaplanMeier:
    """The Kaplan-Meier median of half-lives, some of them right-censored.

    The interval inverts log-log bounds on the survival curve (Brookmeyer and Crowley 1982).
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
    return KaplanMeier(
        median=reached(share),
        low=reached(np.where(np.isnan(low), np.round(share), low)),
        high=reached(np.where(np.isnan(high), 1.0, high)),
        censored_share=float(np.mean(censored)),
    )


def log_rank(
    first: npt.ArrayLike, first_censored: Flags, second: npt.ArrayLike, second_censored: Flags
) -> float:
    """The two-sided p of the log-rank test (Mantel 1966) that two groups' times are alike.

    1 where nothing happened in either group: there is no difference to be seen.

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
    with warnings.catch_warnings():  # no variance: all that happened, happened at once at the end
        warnings.simplefilter("ignore", RuntimeWarning)
        p = float(stats.logrank(*groups).pvalue)
    return 1.0 if np.isnan(p) else p


def _times(values: npt.ArrayLike, censored: Flags) -> stats.CensoredData:
    value, late = np.asarray(values, float), np.asarray(censored, bool)
    if value.size == 0 or value.shape != late.shape or np.any(np.isnan(value)):
        raise ValueError("values must be numbers, at least one, each with its censored flag")
    return stats.CensoredData(uncensored=value[~late], right=value[late])
