"""Paired comparisons: the same prompts before and after, the same seeds on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

from jaxorg.stats.intervals import Floats, Interval
from jaxorg.stats.variance import Labels, crossed_mean

Test: TypeAlias = Literal["sign_flip", "t"]
LEAST_SPREAD = 0.01
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
    differences: npt.ArrayLike, test: Test, seed: int = 0, labels: Sequence[Labels] = ()
) -> Comparison:
    """Compare two sides by one difference a seed.

    Student's t, and the interval, which is t's whatever the test, take the seeds to spread by 0.01
    at least: rates of 0 and 1 may agree in all seeds, and prompts never asked may still differ.
    With one seed both are nan. Where `labels` say that pairs share seeds, interval and p are those
    of `crossed_mean`, whatever the test.

    Args:
        differences: one side's figure minus the other's, one a seed [seeds].
        test: which test p is of.
        seed: of the random sign patterns, where there are too many to try all.
        labels: base, organism and treatment seed of each pair; empty where no two share one.

    Raises:
        ValueError: there are no differences.
    """
    points = np.asarray(differences, float)
    if points.size == 0:
        raise ValueError("a comparison needs at least one difference")
    mean, nan = float(points.mean()), float("nan")
    if crossed := crossed_mean(points, labels, least_spread=LEAST_SPREAD):
        return Comparison(mean, crossed.interval, points.size, crossed.p)
    p = sign_flip(points, seed) if test == "sign_flip" else nan
    if points.size == 1:
        return Comparison(mean, Interval(nan, nan), 1, p)
    error = max(float(points.std(ddof=1)), LEAST_SPREAD) / points.size**0.5
    t = stats.t(points.size - 1)
    half = float(t.ppf(0.975)) * error
    p = p if test == "sign_flip" else float(2 * t.sf(abs(mean) / error))
    return Comparison(mean, Interval(mean - half, mean + half), points.size, p)


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


def least_p(test: Test, seeds: int) -> float:
    """The smallest p that a test can give with so many seeds."""
    if test == "t":
        return 0.0 if seeds > 1 else 1.0
    return min(1.0, 2.0 ** (1 - seeds)) if seeds <= MOST_EXACT else 1 / (DRAWS + 1)
