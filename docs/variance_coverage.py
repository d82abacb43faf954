"""Writes the tables of docs/variance.md: `python docs/variance_coverage.py`, minutes on one core.

Tables of runs are drawn with effects that are normal on the logit scale, so that rates stay between
0 and 1, and the shares are asked for. The true shares of the rate's variance come from quadrature.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from marked_tables import write_table
from scipy.special import expit, ndtr

from jaxorg.stats.intervals import Floats, Interval, seed_interval
from jaxorg.stats.variance import Codes, Run, Shares, crossed_mean, variance_shares

Flags: TypeAlias = npt.NDArray[np.bool_]

PAGE = Path(__file__).parent / "variance.md"
NAMES = ("base", "organism", "treatment", "interaction", "prompts")
DESIGNS = ((1, 4, 4), (2, 4, 4), (2, 2, 4), (1, 8, 8), (1, 3, 3))
BOOTSTRAPS = 300


class World(NamedTuple):
    """The mean, and the standard deviations of base, organism, treatment and interaction, on the
    logit scale."""

    mean: float
    spread: tuple[float, float, float, float]


WORLDS: Mapping[str, World] = {
    "all sources alike": World(0, (0.5, 0.5, 0.5, 0.5)),
    "organisms alone": World(0, (0, 1, 0, 0)),
    "treatments alone": World(0, (0, 0, 1, 0)),
    "rates near 0": World(-3, (0.5, 0.5, 0.5, 0.5)),
    "rates near 1": World(3, (0.5, 0.5, 0.5, 0.5)),
    "all or nothing": World(0, (1, 3, 1, 1)),
}


def main() -> None:
    """Write the four tables between the page's marks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--only", nargs="*", help="names of tables")
    options = parser.parse_args()
    tables = {
        "coverage": _coverage,
        "others": _others,
        "harder": _harder,
        "means": _means,
    }
    for name in options.only or tables:
        write_table(PAGE, Path(__file__).name, name, tables[name](options.replicates))


def truth(world: World, bases: int, n: int) -> Floats:
    """The variances [base, organism, treatment, interaction, prompts] of the rate, by quadrature.

    A source's is the variance of the mean rate given its effect (Sobol 1993). With one base, of
    which the effect is 0, the variances are those around it.
    """
    base, organism, treatment, interaction = np.square(world.spread) * [bases > 1, 1, 1, 1]
    total = base + organism + treatment + interaction
    points, weights = _normal()

    def explained(kept: float) -> float:
        logits = world.mean + kept**0.5 * points[:, None] + max(total - kept, 0) ** 0.5 * points
        given = expit(logits) @ weights
        return float(weights @ given**2 - (weights @ given) ** 2)

    mean = mean_rate(world, bases)
    of_base, of_treatment, whole = explained(base), explained(treatment), explained(total)
    of_organism = explained(base + organism) - of_base
    rest = whole - of_base - of_organism - of_treatment
    found = [of_base, of_organism, of_treatment, rest, (mean * (1 - mean) - whole) / n]
    return np.array(found).clip(0).round(12)


def mean_rate(world: World, bases: int) -> float:
    """The mean of the rate over all sources; of one base, about it."""
    points, weights = _normal()
    total = np.square(world.spread) @ [bases > 1, 1, 1, 1]
    return float(weights @ expit(world.mean + total**0.5 * points))


def _normal() -> tuple[Floats, Floats]:
    """Points and weights of a quadrature over the standard normal distribution."""
    points, weights = np.polynomial.hermite_e.hermegauss(61)
    return points, weights / weights.sum()


def rates_of(world: World, design: Sequence[int], rng: np.random.Generator) -> Floats:
    """True rates [bases, organisms, treatments] of one table."""
    b, o, t = design
    shapes = [(b, 1, 1), (b, o, 1), (1, 1, t), (b, o, t)]
    spread = (world.spread[0] if b > 1 else 0.0, *world.spread[1:])
    effects = (s * rng.normal(size=shape) for s, shape in zip(spread, shapes, strict=True))
    found: Floats = expit(sum(effects, np.full((b, o, t), float(world.mean))))
    return found


def runs_of(k: Codes, n: int) -> list[Run]:
    """The runs of a table of counts [bases, organisms, treatments]."""
    return [Run(b, o, t, int(count), n) for (b, o, t), count in np.ndenumerate(k)]


class Tally:
    """How often intervals held the truth, and what was found on average."""

    def __init__(self, true: Floats) -> None:
        self.true = dict(zip(NAMES, true, strict=True))
        self.held: dict[str, list[tuple[bool, bool, float, float]]] = {}
        self.without = 0

    def add(self, found: Shares) -> None:
        """Compare the components of one table; in these designs each has one source."""
        total = sum(self.true.values())
        self.without += not found.components
        for each in found.components:
            (name,) = each.sources
            true = self.true[name]
            held = _holds(each.variance_interval, true), _holds(each.share_interval, true / total)
            width = each.share_interval.high - each.share_interval.low
            self.held.setdefault(name, []).append((*held, each.share, width))

    def rows(self) -> Iterator[list[str]]:
        """A row a source: its true share, the mean found, coverages in %, and the mean width."""
        total = sum(self.true.values())
        for name, held in self.held.items():
            variance, share, found, width = np.mean(held, axis=0)
            true = self.true[name] / total
            numbers = (f"{true:.2f}", f"{found:.2f}", f"{100 * share:.1f}", f"{width:.2f}")
            yield [name, *numbers, f"{100 * variance:.1f}"]


def _holds(interval: Interval, value: float) -> bool:
    # Bounds of 0 and 1 are met by draws that were cut there.
    return interval.low - 1e-9 <= value <= interval.high + 1e-9


HEAD = ["source", "true share", "found", "share covered, %", "mean width", "variance covered, %"]


def _coverage(replicates: int) -> list[list[str]]:
    rows = [["design", "world", "n", *HEAD]]
    for design in DESIGNS:
        for name, world in WORLDS.items():
            for n in (32, 256):
                rng = np.random.default_rng([*design, n, list(WORLDS).index(name)])
                tally = Tally(truth(world, design[0], n))
                for _ in range(replicates):
                    k = rng.binomial(n, rates_of(world, design, rng))
                    tally.add(variance_shares(runs_of(k, n)))
                rows += [[_named(design), name, str(n), *row] for row in tally.rows()]
    return rows


def _named(design: Iterable[int]) -> str:
    return "×".join(str(each) for each in design)


def _others(replicates: int) -> list[list[str]]:
    """What three methods' intervals of shares cover, and how wide they are, on the same tables."""
    methods = ("generalised", "parametric bootstrap", "nested bootstrap")
    rows = [["design", "world", "source", *(f"{each}, % (width)" for each in methods)]]
    for design in DESIGNS:
        for name in ("all sources alike", "organisms alone", "all or nothing"):
            true = truth(WORLDS[name], design[0], 256)
            rng, ends = np.random.default_rng([*design, 7]), []
            for _ in range(replicates):
                k = rng.binomial(256, rates_of(WORLDS[name], design, rng))
                ends.append(_intervals(k, 256, rng))
            low, high = np.moveaxis(np.array(ends), 2, 0)
            share = (true / true.sum())[:, None]
            held = ((low - 1e-9 <= share) & (share <= high + 1e-9)).mean(axis=0)
            width = (high - low).mean(axis=0)
            for at, source in enumerate(NAMES):
                if source != "base" or design[0] > 1:
                    cells = zip(100 * held[at], width[at], strict=True)
                    shown = (f"{covered:.1f} ({wide:.2f})" for covered, wide in cells)
                    rows.append([_named(design), name, source, *shown])
    return rows


def _intervals(k: Codes, n: int, rng: np.random.Generator) -> Floats:
    """[sources, ends, methods]: the 95 % intervals of shares; from 0 to 1 where there are none."""
    found = np.tile([[0.0], [1.0]], (len(NAMES), 1, 3))
    for each in variance_shares(runs_of(k, n)).components:
        interval = each.share_interval
        found[NAMES.index(each.sources[0]), :, 0] = interval.low, interval.high
    if np.ptp(k) > 0:
        for at, draw in enumerate((_parametric, _nested), start=1):
            found[:, :, at] = np.nanquantile(draw(k / n, n, rng), [0.025, 0.975], axis=0).T
    return found


def balanced(rates: Floats, n: int) -> Floats:
    """Variances [..., sources] of whole tables [..., bases, organisms, treatments], by the formulas
    of textbooks, cut at 0. With one base nothing is given to it."""
    b, o, t = rates.shape[-3:]
    noise = (rates * (1 - rates)).mean(axis=(-3, -2, -1)) / (n - 1)
    mean, base = rates.mean(axis=(-3, -2, -1)), rates.mean(axis=(-2, -1))
    organism, treatment, cell = rates.mean(axis=-1), rates.mean(axis=(-3, -2)), rates.mean(axis=-2)
    rest = rates - organism[..., None] - cell[..., None, :] + base[..., None, None]
    within = np.square(rest).sum(axis=(-3, -2, -1)) / (b * (o - 1) * (t - 1))
    of_organism = t * np.square(organism - base[..., None]).sum(axis=(-2, -1)) / (b * (o - 1))
    of_treatment = b * o * np.square(treatment - mean[..., None]).sum(axis=-1) / (t - 1)
    of_base, of_cell = within * 0 + of_organism, within
    if b > 1:
        of_base = o * t * np.square(base - mean[..., None]).sum(axis=-1) / (b - 1)
        both = cell - base[..., None] - treatment[..., None, :] + mean[..., None, None]
        of_cell = o * np.square(both).sum(axis=(-2, -1)) / ((b - 1) * (t - 1))
    found = [
        (of_base - of_organism - of_cell + within) / (o * t),
        (of_organism - within) / t,
        (of_treatment - of_cell) / (b * o),
        (of_cell - within) / o + within - noise,
        noise,
    ]
    cut: Floats = np.maximum(np.stack(found, axis=-1), 0)
    return cut


def _shared(variances: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        found: Floats = variances / variances.sum(axis=-1, keepdims=True)
    return found


def _parametric(rates: Floats, n: int, rng: np.random.Generator) -> Floats:
    """Shares [bootstraps, sources] of tables drawn with the variances that were found, which in
    whole tables are those of REML unless cut."""
    b, o, t = rates.shape
    found = np.sqrt(balanced(rates, n))
    shapes = [(b, 1, 1), (b, o, 1), (1, 1, t), (b, o, t)]
    drawn = rates.mean() + sum(
        s * rng.normal(size=(BOOTSTRAPS, *shape))
        for s, shape in zip(found[:4], shapes, strict=True)
    )
    return _shared(balanced(rng.binomial(n, np.clip(drawn, 0, 1)) / n, n))


def _nested(rates: Floats, n: int, rng: np.random.Generator) -> Floats:
    """Shares [bootstraps, sources] of tables with bases, their organisms, treatments and prompts
    drawn with replacement (Davison and Hinkley 1997, 3.8)."""
    b, o, t = rates.shape
    bases = rng.integers(b, size=(BOOTSTRAPS, b, 1, 1))
    organisms = rng.integers(o, size=(BOOTSTRAPS, b, o, 1))
    treatments = rng.integers(t, size=(BOOTSTRAPS, 1, 1, t))
    return _shared(balanced(rng.binomial(n, rates[bases, organisms, treatments]) / n, n))


def _harder(replicates: int) -> list[list[str]]:
    """Prompts on which runs agree, with and without their outcomes, and a run that is missing."""
    world, design, n = WORLDS["all sources alike"], (1, 4, 4), 32
    tallies = {
        case: Tally(truth(world, 1, n))
        for case in (
            "the same prompts, counts only",
            "the same prompts, with outcomes",
            "one run of 16 missing",
            "three runs of 16 missing",
        )
    }
    rng = np.random.default_rng(11)
    for _ in range(replicates):
        rates = rates_of(world, design, rng)
        shown = alike_outcomes(rates.ravel(), n, 0.8, rng)
        runs = runs_of(shown.sum(axis=1).reshape(design), n)
        apart = runs_of(rng.binomial(n, rates), n)
        found = (
            variance_shares(runs),
            variance_shares(runs, shown),
            variance_shares(apart[1:]),
            variance_shares([run for at, run in enumerate(apart) if at not in (0, 5, 6)]),
        )
        for tally, shares in zip(tallies.values(), found, strict=True):
            tally.add(shares)
    rows = [["case", *HEAD]]
    return rows + [[case, *row] for case, tally in tallies.items() for row in tally.rows()]


def _means(replicates: int) -> list[list[str]]:
    """What intervals of an arm's mean rate cover, if runs are taken for what they are, and if they
    are taken to be independent."""
    methods = ("as shown", "runs as if independent")
    rows = [["design", "world", *(f"{each}, % (width)" for each in methods)]]
    for design in DESIGNS:
        labels = [(b, o, t) for b, o, t in np.ndindex(*design)]
        for name, world in WORLDS.items():
            true, rng = mean_rate(world, design[0]), np.random.default_rng([*design, 13])
            found = []
            for _ in range(replicates):
                k = rng.binomial(256, rates_of(world, design, rng)).ravel()
                n = np.full(k.size, 256)
                crossed = crossed_mean(k / n, labels)
                for each in (crossed, None):
                    interval = seed_interval(k, n, crossed=each).interval
                    found.append((_holds(interval, true), interval.high - interval.low))
            held = np.array(found).reshape(replicates, len(methods), 2).mean(axis=0)
            shown = (f"{100 * covered:.1f} ({wide:.2f})" for covered, wide in held)
            rows.append([_named(design), name, *shown])
    return rows


def alike_outcomes(rates: Floats, n: int, alike: float, rng: np.random.Generator) -> Flags:
    """Outcomes [runs, n] of runs of these rates [runs], decided by how hard a prompt is for each:
    normal, and correlated by `alike` between runs."""
    hard = alike**0.5 * rng.normal(size=n) + (1 - alike) ** 0.5 * rng.normal(size=(rates.size, n))
    shown: Flags = ndtr(hard) < rates[:, None]
    return shown


if __name__ == "__main__":
    main()
