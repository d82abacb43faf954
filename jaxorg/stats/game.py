"""Red strategies against blue methods: a game in which what one wins the other loses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog

from jaxorg.stats.intervals import NONE, Floats, Interval, bounded_mean


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


def value_interval(payoffs: npt.ArrayLike, level: float = 0.95) -> Interval:
    """The interval of the value of the mean game.

    The value does not fall where a payoff rises. So it lies between those of two games: of the
    lower ends of all cells' intervals and of the upper ones, each `bounded_mean` at a level that
    all cells together hold (Bonferroni). Which strategies are best does not enter. nan for one
    seed.

    Args:
        payoffs: one matrix of shares a seed [seeds, rows, columns], 0 to 1.
        level: of the interval.
    """
    games = np.asarray(payoffs, float)
    if len(games) < 2:
        return NONE
    each = 1 - (1 - level) / games[0].size
    cells = [bounded_mean(cell, level=each) for cell in games.reshape(len(games), -1).T]
    low, high = (
        np.reshape(ends, games[0].shape)
        for ends in zip(*((cell.low, cell.high) for cell in cells), strict=True)
    )
    return Interval(_secured(low)[0], _secured(high)[0])
