"""How far a judge agrees with people, beyond chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from jaxorg.stats.intervals import Interval, wilson


class Agreement(NamedTuple):
    """How often two raters of the same cases agreed, and Cohen's kappa with its interval."""

    agreed: int
    cases: int
    kappa: float
    interval: Interval


def cohens_kappa(
    first: Sequence[Hashable], second: Sequence[Hashable], level: float = 0.95
) -> Agreement:
    """Cohen's kappa (Cohen 1960) of two raters and a Wilson interval.

    Kappa is a monotone function of the share of agreement at given margins, so Wilson's interval of
    that share becomes one of kappa, as Lee and Tu (1994) have it. Where the usual large-sample
    interval (Fleiss, Cohen and Everitt 1969) has no width, at full agreement, this one has.

    Args:
        first: one rater's verdict on each case.
        second: the other's, on the same cases in the same order.
        level: of the interval.

    Raises:
        ValueError: there are no cases, or both raters gave one and the same verdict throughout:
            then chance explains all of their agreement, and kappa is not defined.
    """
    cases = len(first)
    agreed = sum(one == other for one, other in zip(first, second, strict=True))
    ones, others = Counter(first), Counter(second)
    by_chance = sum(ones[verdict] * others[verdict] for verdict in ones)
    if by_chance == cases**2:
        raise ValueError("kappa is not defined where both raters always say the same")

    def kappa(share: float) -> float:
        chance = by_chance / cases**2
        return max((share - chance) / (1 - chance), -1.0)

    share = wilson(agreed, cases, level)
    interval = Interval(kappa(share.low), kappa(share.high))
    return Agreement(agreed, cases, kappa(agreed / cases), interval)
