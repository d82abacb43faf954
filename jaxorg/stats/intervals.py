"""Rates and means across seeds, with their intervals. The replicate is the seed; the prompts of one
evaluation are the inner level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats: TypeAlias = npt.NDArray[np.float64]
Count: TypeAlias = tuple[int, int]
"""Successes k and trials n."""


@dataclass(frozen=True)
class Interval:
    """A two-sided interval; both ends are nan where the data allow none."""

    low: float
    high: float


NONE = Interval(float("nan"), float("nan"))
ROUNDING = 1e-9
"""Values that differ by no more, as a share of the mean, are one value."""
GENERALISED, NOT_TOLD = "generalised", "runs not told apart"
"""Methods for runs that share seeds: an interval, and none."""


class SeedInterval(NamedTuple):
    """A mean across seeds, its interval, and the name of the method that made it."""

    mean: float
    interval: Interval
    method: str


class CrossedMean(NamedTuple):
    """What runs that share seeds say of their mean: its interval, the two-sided p that it is 0, and
    the number of levels of the source with the fewest, which is how many runs agree at least."""

    interval: Interval
    p: float
    levels: int


def wilson(k: int, n: int, level: float = 0.95) -> Interval:
    """The Wilson score interval (Wilson 1927) of k successes in n trials.

    Raises:
        ValueError: not 0 <= k <= n, or n is 0.
    """
    found = stats.binomtest(int(k), int(n)).proportion_ci(level, method="wilson")
    return Interval(float(found.low), float(found.high))


def mean_interval(
    values: npt.ArrayLike,
    low: float = -np.inf,
    high: float = np.inf,
    level: float = 0.95,
    crossed: CrossedMean | None = None,
) -> SeedInterval:
    """The mean of one value per seed, and its interval.

    Student's t, cut to `low` and `high`. A single value gets no interval (nan), as nothing is known
    of its spread; seeds that agree show none either, and get what `agreed` allows. Of values that
    share seeds `crossed` says more than t.

    Args:
        values: one a seed [seeds], in any unit.
        low: the least that the figure can be.
        high: the most.
        level: of the interval.
        crossed: the mean where seeds share organisms or treatments; None where none do.

    Raises:
        ValueError: there are no values.
    """
    points = np.asarray(values, float)
    found = crossed.interval if crossed else student(points, level)
    mean = float(points.mean())
    if points.size == 1:
        return SeedInterval(mean, found, "single seed")
    if np.ptp(points) <= ROUNDING * max(1.0, abs(mean)):
        allowed = agreed(mean, crossed.levels if crossed else points.size, low, high, level)
        return SeedInterval(
            mean, allowed, f"all {points.size} {'runs' if crossed else 'seeds'} agree"
        )
    if np.isnan(found.low):
        return SeedInterval(mean, NONE, NOT_TOLD)
    method = GENERALISED if crossed else "t"
    return SeedInterval(mean, Interval(max(found.low, low), min(found.high, high)), method)


def student(points: Floats, level: float = 0.95) -> Interval:
    """Student's t-interval of a mean, of no width where all points are equal; nan for one point.

    Args:
        points: independent values [points].
        level: of the interval.

    Raises:
        ValueError: there are no points.
    """
    if points.size == 0:
        raise ValueError("a mean needs at least one value")
    if points.size == 1:
        return NONE
    half = stats.sem(points) * stats.t.ppf((1 + level) / 2, points.size - 1)
    return Interval(float(points.mean() - half), float(points.mean() + half))


def agreed(value: float, seeds: int, low: float, high: float, level: float = 0.95) -> Interval:
    """What seeds that all have one value allow of the mean.

    Up to 1 - (alpha / 2)^(1 / seeds) of all seeds may have other values (Clopper and Pearson 1934,
    none of so many), and these may lie at either end. nan where an end is infinite: then nothing
    bounds the mean.

    Args:
        value: what they all have.
        seeds: how many there are.
        low: the least that the figure can be.
        high: the most.
        level: of the interval.
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        return NONE
    others = float(stats.binomtest(0, seeds).proportion_ci(level, method="exact").high)
    return Interval(value - others * (value - low), value + others * (high - value))


def seed_interval(
    k: npt.ArrayLike,
    n: npt.ArrayLike,
    seed: int,
    level: float = 0.95,
    draws: int = 2000,
    crossed: CrossedMean | None = None,
) -> SeedInterval:
    """The mean rate across seeds, from each seed's count of k in n prompts, and its interval.

    Five seeds or more: percentile bootstrap in two levels (Davison and Hinkley 1997, 3.8):
    seeds are drawn with replacement, then the prompts of each drawn seed, which is a binomial
    draw. Two to four: Student's t on the seeds' rates, as too few seeds are left to resample.
    One: Wilson, which speaks for that run only. Rates that share seeds: as `crossed` says.

    Seeds that agree exactly (all 0 %, all 100 %) would give an interval of no width, though
    prompts never asked may differ. All seeds are asked the same prompts, so agreeing seeds say
    no more about other prompts than one does: no interval is narrower than Wilson's at the mean
    rate on one seed's prompts.

    Args:
        k: successes of each seed [seeds].
        n: its trials [seeds].
        seed: of the draws.
        level: of the interval.
        draws: how many there are.
        crossed: the mean where seeds share organisms or treatments; None where none do.

    Raises:
        ValueError: there are no counts, or ones that are not 0 <= k <= n with n >= 1.
    """
    hits, trials = np.atleast_1d(k).astype(np.int64), np.atleast_1d(n).astype(np.int64)
    if hits.size == 0 or hits.shape != trials.shape:
        raise ValueError("k and n must be of one length, and not empty")
    if np.any(hits < 0) or np.any(hits > trials) or np.any(trials < 1):
        raise ValueError("counts must be 0 <= k <= n with n >= 1")
    rates = hits / trials
    mean, asked = float(rates.mean()), int(trials.min())
    one = wilson(round(mean * asked), asked, level)
    if rates.size == 1:
        return SeedInterval(mean, one, "Wilson")
    if crossed:
        found, method = crossed.interval, GENERALISED
        if np.isnan(found.low):
            return SeedInterval(mean, NONE, NOT_TOLD)
    elif rates.size < 5:
        found, method = student(rates, level), "t"
    else:
        found, method = _bootstrap(rates, trials, seed, level, draws), "bootstrap"
    low, high = max(min(found.low, one.low), 0.0), min(max(found.high, one.high), 1.0)
    # Wilson's was rounded to whole prompts: keep the mean inside.
    return SeedInterval(mean, Interval(min(low, mean), max(high, mean)), method)


def _bootstrap(
    rates: Floats, trials: npt.NDArray[np.int64], seed: int, level: float, draws: int
) -> Interval:
    rng = np.random.default_rng(seed)
    drawn = rng.integers(rates.size, size=(draws, rates.size))
    means = (rng.binomial(trials[drawn], rates[drawn]) / trials[drawn]).mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
