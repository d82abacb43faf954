"""Corrections of p for the number of comparisons."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from jaxorg.stats.intervals import Floats


def holm(p: npt.ArrayLike) -> Floats:
    """p corrected so that a family of claims has one error rate (Holm 1979).

    A claim that was not tested (nan) stays nan and counts all the same: what was declared was
    declared.

    Args:
        p: of each claim of the family [claims].

    Returns:
        The corrected p [claims], in the same order, 1 at most.
    """
    given = np.asarray(p, float)
    order = np.argsort(given)  # nan last
    factors = given.size - np.arange(given.size)
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(np.maximum.accumulate(given[order] * factors), 1.0)
    return corrected


def benjamini_hochberg(p: npt.ArrayLike) -> Floats:
    """p corrected so that of what is called a difference, a share is none (Benjamini and Hochberg
    1995). nan stays nan and does not count.

    Args:
        p: of each comparison [comparisons].

    Returns:
        The corrected p [comparisons], in the same order.
    """
    given = np.asarray(p, float)
    corrected, known = given.copy(), ~np.isnan(given)
    if known.any():
        corrected[known] = stats.false_discovery_control(given[known])
    return corrected
