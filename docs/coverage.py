"""Writes the tables of docs/coverage.md: `make coverage`, minutes on one core.

Seeds are drawn from worlds whose truth is known, and intervals are asked for as page and terminal
ask for them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from marked_tables import write_table

from jaxorg import stats
from jaxorg.stats import Interval, Point
from jaxorg.stats.intervals import Floats

PAGE = Path(__file__).parent / "coverage.md"
SEEDS = (3, 5, 8, 16)
PROMPTS = 256
ALONG = 32  # prompts that are measured at every step, of which hulls are made
BUDGET = 200.0  # steps after which a time is censored
DECLARED = 6  # claims of a sweep, as many as any built-in one has
Rng: TypeAlias = np.random.Generator


class World(NamedTuple):
    """How the rates of seeds are spread, and their mean."""

    draw: Callable[[Rng, int], Floats]
    mean: float


def of_two(share: float, low: float, high: float) -> World:
    """Seeds of two sorts: `share` of them have a rate of `high`, the others of `low`."""
    return World(
        lambda rng, n: np.where(rng.random(n) < share, high, low),
        share * high + (1 - share) * low,
    )


def of_beta(a: float, b: float) -> World:
    """Rates from a beta distribution."""
    return World(lambda rng, n: rng.beta(a, b, n), a / (a + b))


WORLDS: Mapping[str, World] = {
    "all at 50 %": of_two(0, 0.5, 0.5),
    "about 50 %, beta (20, 20)": of_beta(20, 20),
    "anything, beta (½, ½)": of_beta(0.5, 0.5),
    "about 5 %, beta (1, 19)": of_beta(1, 19),
    "about 95 %, beta (19, 1)": of_beta(19, 1),
    "3 % of seeds at 100 %, others at 0": of_two(0.03, 0, 1),
    "a tenth at 100 %, others at 0": of_two(0.1, 0, 1),
    "a tenth at 95 %, others at 2 %": of_two(0.1, 0.02, 0.95),
    "a third at 100 %, others at 0": of_two(1 / 3, 0, 1),
    "half at 100 %, others at 0": of_two(0.5, 0, 1),
}


def main() -> None:
    """Write all tables between the page's marks."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--replicates", type=int, default=1000)
    replicates = options.parse_args().replicates
    tables = {
        "rates": rates(replicates),
        "differences": differences(replicates),
        "verdicts": verdicts(replicates),
        "hulls": hulls(replicates),
        "medians": medians(replicates),
        "games": games(replicates),
        "tests": tests(replicates),
        "power": power(replicates),
    }
    for name, rows in tables.items():
        write_table(PAGE, Path(__file__).name, name, rows)


class Tally:
    """How often intervals held the truth, and how wide they were."""

    def __init__(self) -> None:
        self._held: list[bool] = []
        self._widths: list[float] = []

    def add(self, found: Interval, truth: float) -> None:
        """Count an interval; none at all counts neither way."""
        if not np.isnan(found.low):
            self._held.append(bool(found.low - 1e-9 <= truth <= found.high + 1e-9))
            self._widths.append(found.high - found.low)

    def text(self) -> str:
        """`97.2 (0.41)`: percent held, and the mean width; a dash where there was no interval."""
        if not self._held:
            return "–"
        return f"{100 * np.mean(self._held):.1f} ({np.mean(self._widths):.2f})"


def table(
    head: str, rows: Mapping[str, Callable[[Rng, int], tuple[Interval, float]]], replicates: int
) -> list[list[str]]:
    """A row a world, a column a number of seeds; each draws an interval and its truth."""
    found = [[head, *(f"{seeds} seeds" for seeds in SEEDS)]]
    for number, (name, draw) in enumerate(rows.items()):
        cells = []
        for seeds in SEEDS:
            rng, tally = np.random.default_rng([number, seeds]), Tally()
            for _ in range(replicates):
                tally.add(*draw(rng, seeds))
            cells.append(tally.text())
        found.append([name, *cells])
    return found


def rates(replicates: int) -> list[list[str]]:
    """Means of rates over seeds."""

    def of(world: World) -> Callable[[Rng, int], tuple[Interval, float]]:
        def draw(rng: Rng, seeds: int) -> tuple[Interval, float]:
            k = rng.binomial(PROMPTS, world.draw(rng, seeds))
            return stats.seed_interval(k, [PROMPTS] * seeds).interval, world.mean

        return draw

    return table("seeds", {name: of(world) for name, world in WORLDS.items()}, replicates)


def differences(replicates: int) -> list[list[str]]:
    """Paired differences of rates: each world against rates from beta (2, 8) of the same seeds."""
    other = of_beta(2, 8)

    def of(world: World) -> Callable[[Rng, int], tuple[Interval, float]]:
        def draw(rng: Rng, seeds: int) -> tuple[Interval, float]:
            sides = (rng.binomial(PROMPTS, each.draw(rng, seeds)) for each in (world, other))
            more, less = sides
            found = stats.paired((more - less) / PROMPTS, 1.0)
            return found.interval, world.mean - other.mean

        return draw

    return table("first side", {name: of(world) for name, world in WORLDS.items()}, replicates)


def verdicts(replicates: int) -> list[list[str]]:
    """Shares of seeds with a verdict."""

    def of(share: float) -> Callable[[Rng, int], tuple[Interval, float]]:
        def draw(rng: Rng, seeds: int) -> tuple[Interval, float]:
            return stats.bounded_mean((rng.random(seeds) < share).astype(float)), share

        return draw

    shares = (0.03, 0.1, 1 / 3, 0.5, 0.9)
    return table("true share", {f"{100 * it:.0f} %": of(it) for it in shares}, replicates)


def hulls(replicates: int) -> list[list[str]]:
    """`hull_auc` over seeds. A seed's behaviour and capability decay at rates of its own; each step
    is measured on the halves of its prompts. The truth is of as many prompts as one likes, and of
    the same number: what few prompts do to the figure is no matter of the seeds."""
    steps = np.geomspace(1, 200, 6)

    def models(rng: Rng, fast: float, spread: float) -> list[Point]:
        removal = fast * np.exp(spread * rng.normal()) / 200
        loss = 0.3 * fast * np.exp(spread * rng.normal()) / 200
        return [Point(float(np.exp(-loss * t)), float(np.exp(-removal * t))) for t in steps]

    def half(rng: Rng, true: Sequence[Point]) -> list[Point]:
        return [
            Point(*(float(rng.binomial(ALONG // 2, share)) / (ALONG // 2) for share in point))
            for point in true
        ]

    def figure(rng: Rng, fast: float, spread: float) -> float:
        true = models(rng, fast, spread)
        return stats.split_half(half(rng, true), half(rng, true)).hull_auc

    def of(fast: float, spread: float) -> Callable[[Rng, int], tuple[Interval, float]]:
        rng = np.random.default_rng(0)
        truth = float(np.mean([figure(rng, fast, spread) for _ in range(4000)]))

        def draw(rng: Rng, seeds: int) -> tuple[Interval, float]:
            points = [figure(rng, fast, spread) for _ in range(seeds)]
            return stats.mean_interval(points, 0.0, 1.0).interval, truth

        return draw

    worlds = {
        "removed slowly, alike": of(0.5, 0.3),
        "removed, alike": of(3, 0.3),
        "removed, some soon, some hardly": of(3, 2),
        "removed at once": of(20, 0.5),
    }
    return table("seeds", worlds, max(replicates // 4, 1))


def medians(replicates: int) -> list[list[str]]:
    """Kaplan-Meier medians of half-lives, censored at the budget."""

    def lognormal(rng: Rng, n: int) -> Floats:
        found: Floats = np.exp(rng.normal(3, 1, n))
        return found

    def exponential(rng: Rng, n: int) -> Floats:
        return rng.exponential(60, n)

    def some_never(rng: Rng, n: int) -> Floats:
        return np.where(rng.random(n) < 0.4, np.inf, np.exp(rng.normal(3, 1, n)))

    def of(
        draw_times: Callable[[Rng, int], Floats],
    ) -> Callable[[Rng, int], tuple[Interval, float]]:
        truth = float(np.median(draw_times(np.random.default_rng(0), 200_001)))

        def draw(rng: Rng, seeds: int) -> tuple[Interval, float]:
            times = draw_times(rng, seeds)
            late = times > BUDGET
            found = stats.kaplan_meier_median(np.minimum(times, BUDGET), late)
            if found.low is None and found.high is None and seeds < stats.FEWEST_TIMES:
                return stats.NONE, truth
            low, high = (BUDGET if end is None else end for end in (found.low, found.high))
            return Interval(low, high if found.high is not None else np.inf), truth

        return draw

    worlds = {"log-normal": lognormal, "exponential": exponential, "four in ten never": some_never}
    rows = table("times", {name: of(draw) for name, draw in worlds.items()}, replicates)
    return [[cell.partition(" (")[0] if at else cell for at, cell in enumerate(r)] for r in rows]


def games(replicates: int) -> list[list[str]]:
    """Values of games over cells that are all alike, or that a tenth of seeds decide."""

    def of(size: int, world: World) -> Callable[[Rng, int], tuple[Interval, float]]:
        shift = np.random.default_rng(size).uniform(-0.2, 0.2, (size, size))

        def draw(rng: Rng, seeds: int) -> tuple[Interval, float]:
            base = np.stack([world.draw(rng, seeds) for _ in range(size * size)], axis=1)
            cells = 0.2 + 0.6 * base.reshape(seeds, size, size) + shift
            return stats.value_interval(cells), stats.solve(0.2 + 0.6 * world.mean + shift).value

        return draw

    worlds = {
        f"{size} × {size}, {name}": of(size, WORLDS[name])
        for size in (2, 4)
        for name in ("about 50 %, beta (20, 20)", "a tenth at 100 %, others at 0")
    }
    return table("game", worlds, max(replicates // 5, 1))


def tests(replicates: int) -> list[list[str]]:
    """How often the tests call a difference that is none, at 5 %."""
    rows = [["test", *(f"{seeds} seeds" for seeds in SEEDS)]]

    def signs(world: World) -> Callable[[Rng, int], float]:
        def draw(rng: Rng, seeds: int) -> float:
            sides = (rng.binomial(PROMPTS, world.draw(rng, seeds)) / PROMPTS for _ in range(2))
            more, less = sides
            return stats.paired(more - less, 1.0).p

        return draw

    def times(rng: Rng, seeds: int) -> float:
        sides = rng.exponential(100, (2, seeds))
        late = sides > BUDGET
        first, second = np.minimum(sides, BUDGET)
        return stats.log_rank(first, late[0], second, late[1])

    draws = {
        **{f"signs, {name}": signs(world) for name, world in WORLDS.items()},
        "log-rank, exponential times": times,
    }
    for number, (name, p) in enumerate(draws.items()):
        cells = []
        for seeds in SEEDS:
            rng = np.random.default_rng([number, seeds])
            called = np.mean([p(rng, seeds) <= 0.05 for _ in range(replicates)])
            cells.append(f"{100 * called:.1f}")
        rows.append([name, *cells])
    return rows


def power(replicates: int) -> list[list[str]]:
    """How often a claim is seen, if it is true and one of `DECLARED`."""
    rows = [["first side against second", *(f"{seeds} seeds" for seeds in SEEDS)]]
    pairs = {
        **{
            f"{50 + apart // 2} % against {50 - apart // 2} %, {spread}": tuple(
                of_beta(size * (50 + side * apart / 2) / 100, size * (50 - side * apart / 2) / 100)
                for side in (1, -1)
            )
            for size, spread in (
                (40, "seeds much alike, beta (a, 40 - a)"),
                (2, "of all sorts, beta (a, 2 - a)"),
            )
            for apart in (10, 20, 40, 60)
        },
        "all keep it against half": (of_two(1, 0, 1), of_two(0.5, 0, 1)),
        "all keep it against a tenth": (of_two(1, 0, 1), of_two(0.1, 0, 1)),
    }
    for number, (name, sides) in enumerate(pairs.items()):
        cells = []
        for seeds in SEEDS:
            rng, seen = np.random.default_rng([number, seeds]), 0
            for _ in range(replicates):
                more, less = (rng.binomial(PROMPTS, side.draw(rng, seeds)) for side in sides)
                found = stats.paired((more - less) / PROMPTS, 1.0)
                seen += found.effect > 0 and DECLARED * found.p <= 0.05
            cells.append(f"{100 * seen / replicates:.0f}")
        rows.append([name, *cells])
    return rows


if __name__ == "__main__":
    main()
