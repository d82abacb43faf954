"""Red strategies against blue methods: which one stands when the other side knows of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxorg import stats
from jaxorg.prereg import GROUP_FIGURES
from jaxorg.stats import Interval
from jaxorg.summary.hulls import Hull

PAYOFF = GROUP_FIGURES[-1]  # what is left when a tenth of the capability may be lost


@dataclass(frozen=True)
class RedBlue:
    """The game: red strategies in rows, blue methods in columns, and what is left of the behaviour
    at a loss of 10 % of the capability, the mean over the seeds that played all of it."""

    red: tuple[str, ...]
    blue: tuple[str, ...]
    left: tuple[tuple[float, ...], ...]
    seeds: int
    worst: tuple[int, ...]  # for each blue method the row that leaves most
    equilibrium: stats.Game
    interval: Interval


def game_of(hulls: Sequence[Hull]) -> RedBlue | None:
    """The game of all organisms but controls; None where a side has no choice, or where no seed
    has all cells."""
    played = [hull for hull in hulls if not hull.groups[0].control]
    red = tuple(dict.fromkeys(hull.organism for hull in played))
    blue = tuple(dict.fromkeys(hull.treatment for hull in played))
    cells = {
        (group.seed, hull.organism, hull.treatment): group.figures[PAYOFF]
        for hull in played
        for group in hull.groups
        if group.figures
    }
    if min(len(red), len(blue)) < 2:
        return None
    seeds = sorted({seed for seed, _, _ in cells})
    games = [[[cells.get((seed, r, b), np.nan) for b in blue] for r in red] for seed in seeds]
    whole = np.array([game for game in games if not np.isnan(game).any()])
    if not whole.size:
        return None
    left = whole.mean(axis=0)
    return RedBlue(
        red=red,
        blue=blue,
        left=tuple(map(tuple, left.tolist())),
        seeds=len(whole),
        worst=tuple(stats.worst_rows(left)),
        equilibrium=stats.solve(left),
        interval=stats.value_interval(whole, seed=0),
    )
