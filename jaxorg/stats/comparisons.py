"""Paired comparisons: the same prompts before and after, the same seeds on both sides."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from jaxorg.stats.intervals import Floats, Interval, mean_interval

Test: TypeAlias = Literal["sign_flip", "t"]
MOST_EXACT = 16  # seeds whose 2^n sign patterns are all tried
DRAWS = 100_000  # of random patterns beyond that


class Comparison(NamedTuple):
    """A mean difference over n seeds, its t-interval, and the two-sided p of a test."""

    effect: float
    interval: Interval
    n: int
    p: float


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p of McNemar's test (1947), from the prompts whose answer changed.

    `gained` are those that show the behaviour after and not before, `lost` the others. 1 where
    none changed. Raises ValueError for negative counts.
    """
    if min(gained, lost) < 0:
        raise ValueError(f"({gained}, {lost}) are no counts")
    if gained + lost == 0:
        return 1.0
    return float(stats.binomtest(gained, gained + lost, 0.5).pvalue)


def paired(differences: npt.ArrayLike, test: Test, seed: int = 0) -> Comparison:
    """Compare two sides by one difference a seed.

    The interval is Student's t, whatever the test. Raises ValueError for no differences.
    """
    points = np.asarray(differences, float)
    mean, interval, _ = mean_interval(points)
    p = sign_flip(points, seed) if test == "sign_flip" else paired_t(points)
    return Comparison(mean, interval, points.size, p)


def paired_t(differences: Floats) -> float:
    """The two-sided p of Student's t-test that the mean difference is 0; nan where the
    differences have no spread, or there is one only: then t says nothing."""
    if differences.size < 2 or np.ptp(differences) < 1e-12:
        return float("nan")
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def sign_flip(differences: Floats, seed: int = 0) -> float:
    """The two-sided p of Fisher's permutation test (1935, 21): under the null, each seed's
    difference could as well have had the other sign.

    The share of sign patterns whose mean is at least as far from 0 as what was seen. Exact up to
    16 seeds, so n seeds give no p below 2 / 2^n; beyond, from 100,000 random patterns.
    """
    n, seen = differences.size, abs(differences.sum())
    if n <= MOST_EXACT:
        flips = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        return float(np.mean(_as_far(flips, differences, seen)))
    flips = np.random.default_rng(seed).integers(2, size=(DRAWS, n))
    return float((np.sum(_as_far(flips, differences, seen)) + 1) / (DRAWS + 1))


def _as_far(
    flips: npt.NDArray[np.int64], differences: Floats, seen: float
) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = np.abs((1 - 2 * flips) @ differences) >= seen * (1 - 1e-12)
    return found


def least_p(test: Test, seeds: int) -> float:
    """The smallest p that a test can give with so many seeds."""
    if test == "t":
        return 0.0 if seeds > 1 else 1.0
    return min(1.0, 2.0 ** (1 - seeds)) if seeds <= MOST_EXACT else 1 / (DRAWS + 1)
