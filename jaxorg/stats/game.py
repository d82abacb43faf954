"""Red strategies against blue methods: a game in which what one wins the other loses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog

from jaxorg.stats.intervals import NONE, ROUNDING, Floats, Interval, agreed

LEAST_SEEDS = 5  # fewer are not drawn from


@dataclass(frozen=True)
class Game:
    """The value of a game and strategies that secure it: how often to play each row and column."""

    value: float
    rows: tuple[float, ...]
    columns: tuple[float, ...]


def solve(payoff: npt.ArrayLike) -> Game:
    """The equilibrium of a zero-sum game (von Neumann 1928), by linear programming.

    Of several equilibria one is given; the value is the same.

    Args:
        payoff: [rows, columns], what the player of rows wins and that of columns loses.

    Raises:
        ValueError: it is no matrix of numbers.
    """
    matrix = np.asarray(payoff, float)
    if matrix.ndim != 2 or matrix.size == 0 or not np.all(np.isfinite(matrix)):
        raise ValueError("the payoff must be a matrix of numbers")
    value, rows = _secured(matrix)
    _, columns = _secured(-matrix.T)
    return Game(value, rows, columns)


def _secured(matrix: Floats) -> tuple[float, tuple[float, ...]]:
    """The most that the player of rows can be sure of, and how."""
    m, n = matrix.shape
    found = linprog(
        c=[*([0.0] * m), -1.0],
        A_ub=np.hstack([-matrix.T, np.ones((n, 1))]),
        b_ub=np.zeros(n),
        A_eq=[[*([1.0] * m), 0.0]],
        b_eq=[1.0],
        bounds=[*([(0, None)] * m), (None, None)],
    )
    if found.status != 0:
        raise AssertionError(f"a game has an equilibrium, but: {found.message}")
    return float(found.x[-1]), tuple(float(share) for share in found.x[:-1])


def worst_rows(payoff: npt.ArrayLike) -> list[int]:
    """The row that is worst for the player of each column: what counts when it is known.

    Args:
        payoff: [rows, columns], as `solve` takes it.

    Returns:
        The number of a row for each column.
    """
    return [int(row) for row in np.argmax(np.asarray(payoff, float), axis=0)]


def value_interval(
    payoffs: npt.ArrayLike, seed: int, level: float = 0.95, draws: int = 500
) -> Interval:
    """The interval of the value of the mean game.

    Percentile bootstrap: seeds are drawn with replacement, all cells of a seed together. Where all
    draws have one value, as of seeds that agree, what `agreed` allows. nan for fewer than 5 seeds.

    Args:
        payoffs: one matrix of shares a seed [seeds, rows, columns], 0 to 1.
        seed: of the draws.
        level: of the interval.
        draws: how many there are.
    """
    games = np.asarray(payoffs, float)
    if len(games) < LEAST_SEEDS:
        return NONE
    drawn = np.random.default_rng(seed).integers(len(games), size=(draws, len(games)))
    values = [_secured(games[chosen].mean(axis=0))[0] for chosen in drawn]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    if high - low <= ROUNDING:
        return agreed(float(np.mean(values)), len(games), 0.0, 1.0, level)
    return Interval(float(low), float(high))
