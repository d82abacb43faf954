"""Paired comparisons: the same prompts before and after, the same seeds on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from jaxorg.stats.intervals import Floats, Interval, mean_interval
from jaxorg.stats.variance import Labels, crossed_mean

MOST_EXACT = 16  # seeds whose 2^n sign patterns are all tried
DRAWS = 100_000  # of random patterns beyond that
SMALLEST = 1e-6  # to which p is found


class Comparison(NamedTuple):
    """A mean difference over n seeds, its interval, and the two-sided p that it is 0."""

    effect: float
    interval: Interval
    n: int
    p: float


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p of McNemar's test (1947), from the prompts whose answer changed.

    It needs the same prompts on both sides, with one outcome each: `gained` are those that show the
    behaviour after and not before, `lost` the others. 1 where none changed. The p speaks of the two
    models that answered, one run before and after; prompts of several seeds are no more replicates,
    so do not add them up (`paired` compares seeds).

    Raises:
        ValueError: a count is negative.
    """
    if min(gained, lost) < 0:
        raise ValueError(f"({gained}, {lost}) are no counts")
    if gained + lost == 0:
        return 1.0
    return float(stats.binomtest(gained, gained + lost, 0.5).pvalue)


def paired(
    differences: npt.ArrayLike, most: float, seed: int = 0, labels: Sequence[Labels] = ()
) -> Comparison:
    """Compare two sides by one difference a seed.

    The interval is `mean_interval`, p that of `sign_flip`. Where `labels` say that pairs share
    seeds, both are as `crossed_mean` has them.

    Args:
        differences: one side's figure minus the other's, one a seed [seeds].
        most: the most that one can be, either way; infinite where nothing bounds the figure.
        seed: of the random sign patterns, where there are too many to try all.
        labels: base, organism and treatment seed of each pair; empty where no two share one.

    Raises:
        ValueError: there are no differences.
    """
    points = np.asarray(differences, float)
    crossed = crossed_mean(points, labels)
    mean, interval, _ = mean_interval(points, -most, most, crossed=crossed)
    return Comparison(
        mean, interval, points.size, crossed.p if crossed else sign_flip(points, seed)
    )


def equivalent(
    differences: npt.ArrayLike, within: float, most: float, labels: Sequence[Labels] = ()
) -> float:
    """The p of two one-sided tests (Schuirmann 1987) that a mean difference is not within a margin:
    the smallest alpha at which the interval of level 1 - 2 alpha lies inside it.

    Args:
        differences: one side's figure minus the other's, one a seed [seeds].
        within: the margin, either way.
        most: the most that a difference can be, either way.
        labels: base, organism and treatment seed of each pair; empty where no two share one.

    Returns:
        At most 0.5; nan where there is no interval.
    """
    points = np.asarray(differences, float)

    def inside(alpha: float) -> bool:
        crossed = crossed_mean(points, labels, 1 - 2 * alpha)
        found = mean_interval(points, -most, most, 1 - 2 * alpha, crossed).interval
        return -within < found.low and found.high < within

    if np.isnan(mean_interval(points, -most, most, crossed=crossed_mean(points, labels))[1].low):
        return float("nan")
    low, high = 0.0, 0.5
    while high - low > SMALLEST:
        middle = (low + high) / 2
        low, high = (low, middle) if inside(middle) else (middle, high)
    return high


def sign_flip(differences: Floats, seed: int = 0) -> float:
    """The two-sided p of Fisher's permutation test (1935, 21): under the null, each seed's
    difference could as well have had the other sign.

    The share of sign patterns whose mean is at least as far from 0 as what was seen. Exact up to
    16 seeds, so n seeds give no p below 2 / 2^n; beyond, from 100,000 random patterns.

    Args:
        differences: one a seed [seeds].
        seed: of the random patterns.
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


def least_p(seeds: int, within: float | None = None, most: float = 1.0) -> float:
    """The smallest p that a comparison over so many independent seeds can give.

    Args:
        seeds: how many.
        within: the margin, if it is that of `equivalent`: then all differences are 0 at best.
        most: the most that a difference can be, either way.
    """
    if within is not None:
        return (1 - within / most) ** seeds if seeds > 1 else 1.0
    return min(1.0, 2.0 ** (1 - seeds)) if seeds <= MOST_EXACT else 1 / (DRAWS + 1)
