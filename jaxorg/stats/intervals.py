"""Rates and means across seeds, with their intervals. The replicate is the seed; the prompts of one
evaluation are the inner level.

How seeds are spread is not known: most may agree, and one in ten do something else. So intervals
take nothing for granted but the ends of what a figure can be; docs/coverage.md says how often they
hold the truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.interpolate import BSpline
from scipy.optimize import brentq

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
"""Values that differ by no more, as a share of what they can be, are one value."""
BOUNDED, SINGLE, UNBOUNDED = "bounded mean", "single seed", "unbounded"
GENERALISED, NOT_TOLD = "generalised", "runs not told apart"
"""Methods: of values between two ends; none for one seed, and for a figure without ends; for runs
that share seeds, and none for these."""


class SeedInterval(NamedTuple):
    """A mean across seeds, its interval, and the name of the method that made it."""

    mean: float
    interval: Interval
    method: str


class CrossedMean(NamedTuple):
    """What runs that share seeds say of their mean: its interval, the two-sided p that it is 0, and
    the mean of each level of the source that has the fewest."""

    interval: Interval
    p: float
    means: tuple[float, ...]


def wilson(k: int, n: int, level: float = 0.95) -> Interval:
    """The Wilson score interval (Wilson 1927) of k successes in n trials.

    Raises:
        ValueError: not 0 <= k <= n, or n is 0.
    """
    found = stats.binomtest(int(k), int(n)).proportion_ci(level, method="wilson")
    return Interval(float(found.low), float(found.high))


def bounded_mean(
    values: npt.ArrayLike, low: float = 0.0, high: float = 1.0, level: float = 0.95
) -> Interval:
    """The interval of a mean that independent values between two ends allow, however they are
    spread (Gaffke 2005; Learned-Miller and Thomas 2019).

    Let 0 <= x(1) <= ... <= x(n) <= x(n + 1) = 1 be the values in order and the upper end, and
    u(1) <= ... <= u(n) draws from [0, 1] in order. The upper bound is the 97.5 % quantile of
    1 - sum u(i) (x(i + 1) - x(i)); the lower one mirrors it. Of values that are 0 or 1 the interval
    is Clopper and Pearson's (1934). For others no proof is known, and no counterexample.

    Where all values lie at one end, nothing can be beyond it, and the whole 5 % are of the other
    side: three times 0 leave up to 63 %.

    Args:
        values: one a seed [seeds].
        low: the least that the figure can be.
        high: the most.
        level: of the interval.

    Raises:
        ValueError: there are no values.
    """
    points = np.asarray(values, float)
    if points.size == 0:
        raise ValueError("a mean needs at least one value")
    shares = np.clip((np.sort(points) - low) / (high - low), 0, 1)
    below, above = bool(shares[-1] <= ROUNDING), bool(shares[0] >= 1 - ROUNDING)
    alpha = 1 - level if below or above else (1 - level) / 2
    most = 1.0 if above else _upper(shares, alpha)
    least = 0.0 if below else 1 - _upper(1 - shares[::-1], alpha)
    return Interval(low + (high - low) * least, low + (high - low) * most)


def _upper(shares: Floats, alpha: float) -> float:
    """The bound on the mean of shares in ascending order.

    With draws in order it is a mean of the shares and 1, of weights that are uniform over all that
    add up to 1. The density of such a mean is the B-spline with these knots (Curry and Schoenberg
    1966), so its quantile takes no draws.
    """
    end = np.nextafter(1.0, 0)
    if shares[0] >= end:
        return 1.0
    spline = BSpline.basis_element(np.append(shares, 1.0), extrapolate=False).antiderivative()
    none, all_ = spline(shares[0]), spline(end)
    return float(
        brentq(lambda at: (spline(at) - none) / (all_ - none) - (1 - alpha), shares[0], end)
    )


def mean_interval(
    values: npt.ArrayLike,
    low: float = -np.inf,
    high: float = np.inf,
    level: float = 0.95,
    crossed: CrossedMean | None = None,
) -> SeedInterval:
    """The mean of one value per seed, and its interval: `bounded_mean`.

    A single value gets none (nan), as nothing is known of its spread; neither does a figure without
    two ends, as one seed in so many may be anywhere. Of values that share seeds see `CrossedMean`.

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
    if points.size == 0:
        raise ValueError("a mean needs at least one value")
    mean = float(points.mean())
    if points.size == 1:
        return SeedInterval(mean, NONE, SINGLE)
    if crossed and np.isnan(crossed.interval.low):
        return SeedInterval(mean, NONE, NOT_TOLD)
    if not np.isfinite(high - low):
        return SeedInterval(mean, NONE, UNBOUNDED)
    found, method = _within(points, low, high, level, crossed)
    return SeedInterval(mean, found, method)


def _within(
    points: Floats, low: float, high: float, level: float, crossed: CrossedMean | None
) -> tuple[Interval, str]:
    """The interval between two ends, and its method. That of runs which share seeds is no narrower
    than the levels of the source with the fewest allow."""
    if not crossed:
        return bounded_mean(points, low, high, level), BOUNDED
    least, found = bounded_mean(crossed.means, low, high, level), crossed.interval
    return Interval(
        max(min(found.low, least.low), low), min(max(found.high, least.high), high)
    ), GENERALISED


def seed_interval(
    k: npt.ArrayLike, n: npt.ArrayLike, level: float = 0.95, crossed: CrossedMean | None = None
) -> SeedInterval:
    """The mean rate across seeds, from each seed's count of k in n prompts, and its interval.

    One seed: Wilson, which speaks for that run only. More: `bounded_mean` of their rates. All seeds
    are asked the same prompts, and so share what these prompts do: no interval is narrower than
    Wilson's at the mean rate on one seed's prompts.

    Args:
        k: successes of each seed [seeds].
        n: its trials [seeds].
        level: of the interval.
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
    if crossed and np.isnan(crossed.interval.low):
        return SeedInterval(mean, NONE, NOT_TOLD)
    found, method = _within(rates, 0.0, 1.0, level, crossed)
    low, high = min(found.low, one.low), max(found.high, one.high)
    # Wilson's was rounded to whole prompts: keep the mean inside.
    return SeedInterval(mean, Interval(min(low, mean), max(high, mean)), method)
