"""How well scores tell one kind from another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats
from scipy.optimize import brentq

from jaxorg.stats.intervals import (
    NONE,
    CrossedMean,
    Floats,
    Interval,
    SeedInterval,
    mean_interval,
)


def auroc(positive: npt.ArrayLike, negative: npt.ArrayLike, level: float = 0.95) -> SeedInterval:
    """The area under the receiver operating characteristic: how often a positive case has a higher
    score than a negative one, ties counting half; with its interval.

    The interval is DeLong's (DeLong, DeLong and Clarke-Pearson 1988), cut to [0, 1]. Where the
    scores separate all cases, DeLong's has no width, and of a side of one case it knows no spread:
    there Newcombe's score interval (2006, method 5) stands in.

    Args:
        positive: scores of the cases that should have the higher ones [P], in any unit.
        negative: scores of the others [N], in the same unit.
        level: of the interval.

    Raises:
        ValueError: a side has no scores, or one that is no number.
    """
    above, below = np.asarray(positive, float), np.asarray(negative, float)
    for side in (above, below):
        if side.ndim != 1 or side.size == 0 or np.any(np.isnan(side)):
            raise ValueError("each side needs scores, and all must be numbers")
    wins = _wins(above, below)
    area = float(wins.mean())
    z = float(stats.norm.ppf((1 + level) / 2))
    single = min(above.size, below.size) == 1
    variance = 0.0 if single else _variance(wins.mean(axis=1)) + _variance(wins.mean(axis=0))
    if not variance > 0:
        return SeedInterval(area, _newcombe(area, above.size, below.size, z), "Newcombe")
    half = z * np.sqrt(variance)
    found = Interval(max(float(area - half), 0.0), min(float(area + half), 1.0))
    return SeedInterval(area, found, "DeLong")


def area(positive: Floats, negative: Floats) -> float:
    """The area alone; where a score is no number, it is neither higher nor lower than any.

    Args:
        positive: scores of the cases that should have the higher ones [P].
        negative: scores of the others [N].
    """
    return float(_wins(positive, negative).mean())


def _wins(positive: Floats, negative: Floats) -> Floats:
    """Of each pair whether the positive case has the higher score; one half of ties."""
    found: Floats = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    return found


def seed_auroc(
    areas: npt.ArrayLike, cases: int, level: float = 0.95, crossed: CrossedMean | None = None
) -> SeedInterval:
    """The mean over seeds of areas that were each measured on so many cases of either side, and
    its interval: `mean_interval`, but none narrower than Newcombe's at the mean on one seed's
    cases, which speaks for a single seed alone. Seeds may share their cases.

    Args:
        areas: one a seed [seeds], 0 to 1.
        cases: how many positive cases each was measured on; as many were negative.
        level: of the interval.
        crossed: the mean where seeds share organisms or treatments; None where none do.

    Raises:
        ValueError: there are no areas.
    """
    points = np.asarray(areas, float)
    mean, found, method = mean_interval(points, 0.0, 1.0, level, crossed)
    one = _newcombe(mean, cases, cases, float(stats.norm.ppf((1 + level) / 2)))
    if points.size == 1:
        return SeedInterval(mean, one, "Newcombe")
    if np.isnan(found.low):
        return SeedInterval(mean, NONE, method)
    return SeedInterval(mean, Interval(min(found.low, one.low), max(found.high, one.high)), method)


def _variance(components: Floats) -> float:
    """What one side adds to the variance."""
    return float(components.var(ddof=1) / components.size)


def _newcombe(area: float, m: int, n: int, z: float) -> Interval:
    """The areas from which the one that was found is not further than z standard errors."""
    return Interval(_lowest(area, m, n, z), 1 - _lowest(1 - area, m, n, z))


def _lowest(area: float, m: int, n: int, z: float) -> float:
    """The lower end of Newcombe's interval, whose upper end mirrors that of 1 - area."""
    cases = (m + n) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + cases * (1 - theta) / (2 - theta) + cases * theta / (1 + theta)
        return float(theta + z * np.sqrt(theta * (1 - theta) * spread / (m * n)) - area)

    if area <= 0:
        return 0.0
    # Up to just below the area: at 1 itself the error is 0, a root that bounds nothing.
    return float(brentq(excess, 0, np.nextafter(area, 0)))
