"""Shares of the variance of a rate over runs: what bases, organisms, treatments, their interaction
and prompts add to it.

A run's rate k / n is taken as the sum of a mean and independent effects of its base seed, its
organism seed (nested in the base), its treatment seed (crossed with both), their interaction, and
of the n prompts that were drawn. docs/variance.md says what the shares mean and how often the
intervals hold the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from jaxorg.stats.intervals import NONE, CrossedMean, Floats, Interval

Source: TypeAlias = Literal["base", "organism", "treatment", "interaction", "prompts"]
Codes: TypeAlias = npt.NDArray[np.int64]
"""[runs]: of each run the number of its level, from 0."""
Labels: TypeAlias = tuple[int, int, int]
"""A run's base, organism and treatment seed. Organisms are nested in bases, treatments are not."""

DRAWS = 5_000
MOST_RUNS = 512
"""Work and memory grow as the square of the runs; more are not taken apart."""
MOST = 0.25
"""No rate varies more: half of all runs at 0, half at 1."""
TINY = 1e-12
"""Stands for no variance at all where a share needs something to be a share of."""


class Run(NamedTuple):
    """One run: its seeds, and k of the n prompts that all runs were asked.

    Organisms are nested in bases: organism 0 of base 0 is another than organism 0 of base 1.
    Treatments are not: runs of one label had one treatment seed.
    """

    base: int
    organism: int
    treatment: int
    k: int
    n: int


@dataclass(frozen=True)
class Component:
    """What a source adds to the variance; of several sources what they add together, where the
    runs do not tell them apart. `variance` is in squared rate, `share` is of the total."""

    sources: tuple[Source, ...]
    variance: float
    variance_interval: Interval
    share: float
    share_interval: Interval


@dataclass(frozen=True)
class Shares:
    """The components of the variance of one run's rate, and their sum.

    `notes` say in words what is not known: sources of one level, which are in no component and not
    in `total`; sources that cannot be told apart; why there are no components at all.
    """

    components: tuple[Component, ...]
    total: float
    notes: tuple[str, ...]


def crossed_mean(
    values: npt.ArrayLike,
    labels: Sequence[Labels],
    level: float = 0.95,
) -> CrossedMean | None:
    """What runs that share base, organism or treatment seeds say of the mean of a figure.

    The interval is generalised, from the same draws as those of `variance_shares`, and symmetric.
    Each source adds its variance over the number of its levels to that of the mean. No p is below
    the least that signs of as many independent values can give as the source with the fewest levels
    has: runs that agree may do so by what they share.

    Args:
        values: [runs], one a run.
        labels: of each run.
        level: how often the interval is to hold the truth.

    Returns:
        None where runs are independent, as no seed tells some of them from the others. Interval
        and p are nan where too many runs are missing, or more than `MOST_RUNS` are there.
    """
    if independent(labels):
        return None
    codes, table = _design(tuple(labels[:MOST_RUNS]))
    if len(labels) > MOST_RUNS or np.any(table.degrees == 0):
        return CrossedMean(NONE, float("nan"), ())
    points = np.asarray(values, float)
    means = np.bincount(codes, points) / np.bincount(codes)
    squares = np.array([points @ form @ points for form in table.forms]) / table.degrees
    squares = np.maximum(squares, 0)  # rounding gives less where runs agree
    draws = squares * table.degrees / _chi_squares(tuple(table.degrees.tolist()))
    # The last term, a level a run, is in the variance of the mean whatever else is.
    variance = np.maximum(draws @ table.of_mean, draws[:, -1] / points.size)
    off = np.abs(np.sqrt(variance) * np.random.default_rng(1).normal(size=DRAWS))
    mean, half = float(points.mean()), float(np.quantile(off, level))
    p = max(float((np.sum(off >= abs(mean)) + 1) / (DRAWS + 1)), 2.0 ** (1 - means.size))
    return CrossedMean(Interval(mean - half, mean + half), p, tuple(means.tolist()))


def fewest_levels(labels: Sequence[Labels]) -> int:
    """How many levels the source with the fewest has, one-level ones aside; of independent runs how
    many there are."""
    if independent(labels):
        return len(labels)
    return min(int(term.codes.max()) for term in _terms(np.array(labels))[0]) + 1


def independent(labels: Sequence[Labels]) -> bool:
    """Whether no seed tells some of these runs from the others: all have seeds of their own, but
    for those that all of them have."""
    return len(labels) < 2 or len(_terms(np.array(labels))[0]) == 1


@lru_cache(maxsize=16)
def _design(labels: tuple[Labels, ...]) -> tuple[Codes, _Table]:
    """The levels of the source with the fewest, and the table of terms; all figures of an arm share
    them."""
    terms, _ = _terms(np.array(labels))
    scarce = min((term.codes for term in terms), key=lambda codes: int(codes.max()))
    return scarce, _table(terms, len(labels))


def variance_shares(
    runs: Sequence[Run], outcomes: npt.ArrayLike | None = None, level: float = 0.95
) -> Shares:
    """Share out the variance of a rate over what the runs of one arm differ in.

    Estimates equate type II mean squares to their expectations (Henderson 1953) and are cut at 0.
    Intervals are generalised confidence intervals (Weerahandi 1995; Burdick, Borror and Montgomery
    2005). They take effects to be normal; of a table in which runs are missing they are
    approximate.

    Args:
        runs: the runs, in any order.
        outcomes: [runs, prompts], whether the run shows the behaviour on the prompt. Without them
            it is not known how far the runs differ on the same prompts: then intervals hold for
            any such overlap, and estimates for none.
        level: how often an interval is to hold the truth.

    Raises:
        ValueError: no runs, two of the same seeds, counts other than 0 <= k <= n with n >= 2, or
            outcomes that do not have these counts.
    """
    labels, k, n = _checked(runs)
    rates, noise = k / n, k * (n - k) / (n**2 * (n - 1))
    assumed = _overlaps(noise) if outcomes is None else [_covariance(outcomes, k)]
    terms, notes = _terms(labels)
    if np.all(rates == rates[0]):
        return Shares((), 0.0, (*notes, f"{_alike(rates)}: there is no variance to share out"))
    if len(runs) > MOST_RUNS:
        many = f"{len(runs)} runs are more than the {MOST_RUNS} that can be taken apart"
        return Shares((), float(rates.var(ddof=1)), (*notes, many))
    table = _table(terms, len(runs))
    if np.any(table.degrees == 0):
        (first, *_) = np.flatnonzero(table.degrees == 0)
        missing = f"too few runs to tell {' + '.join(terms[first].sources)} from the rest"
        return Shares((), float(rates.var(ddof=1)), (*notes, missing))

    squares = np.array([rates @ form @ rates for form in table.forms])
    draws = squares / _chi_squares(tuple(table.degrees.tolist()))
    # [assumptions, terms]: what the prompts add to each mean square.
    added = np.array([[np.sum(form * each) for form in table.forms] for each in assumed])
    added /= table.degrees
    found = table.variances(squares / table.degrees - added[0])
    prompts = _prompts(draws, table, float(rates.mean()), float((1 / (n - 1)).mean()))
    drawn = [np.column_stack([table.variances(draws - each), prompts]) for each in added]
    names = [*table.sources, ("prompts",)]
    components = _components(names, np.append(found, noise.mean()), np.stack(drawn), level)
    return Shares(components, sum(each.variance for each in components), notes)


def _checked(runs: Sequence[Run]) -> tuple[Codes, Codes, Codes]:
    """Labels [runs, 3], k [runs] and n [runs]."""
    table = np.array(runs, np.int64).reshape(-1, 5)
    labels, k, n = table[:, :3], table[:, 3], table[:, 4]
    if len(table) == 0:
        raise ValueError("shares of variance need at least one run")
    if np.any(k < 0) or np.any(k > n) or np.any(n < 2):
        raise ValueError("counts must be 0 <= k <= n with n >= 2")
    if len(np.unique(labels, axis=0)) < len(table):
        raise ValueError("two runs have the same base, organism and treatment seed")
    return labels, k, n


def _overlaps(noise: Floats) -> list[Floats]:
    """The least and the most that runs may have in common of the prompts' noise: prompts on which
    all agree move all rates together, and leave their differences alone."""
    return [np.diag(noise), np.zeros((noise.size, noise.size))]


def _covariance(outcomes: npt.ArrayLike, k: Codes) -> Floats:
    """The covariance [runs, runs] of rates over draws of prompts."""
    shown = np.asarray(outcomes, bool)
    if shown.ndim != 2 or not np.array_equal(shown.sum(axis=1), k):
        raise ValueError("outcomes must be [runs, prompts], with k true in each run's row")
    found: Floats = np.atleast_2d(np.cov(shown.astype(float))) / shown.shape[1]
    return found


def _alike(rates: Floats) -> str:
    if len(rates) == 1:
        return f"one run, at {rates[0]:.1%}"
    return f"all {len(rates)} runs are at {rates[0]:.1%}"


class _Term(NamedTuple):
    """A component of the model: its sources, and the level of each run."""

    sources: tuple[Source, ...]
    codes: Codes


def _terms(labels: Codes) -> tuple[list[_Term], tuple[str, ...]]:
    """The model that these runs allow, the interaction of organism and treatment last, which has a
    level per run; and what the runs do not tell.

    Sources with the same levels are one term. With several bases and treatments, their interaction
    is another term.
    """
    base, organism, treatment = labels.T
    factors: dict[Source, tuple[int, ...]] = {
        "base": _codes(base),
        "organism": _codes(base, organism),
        "treatment": _codes(treatment),
    }
    single = [source for source, codes in factors.items() if max(codes) == 0]
    groups: dict[tuple[int, ...], tuple[Source, ...]] = {}
    for source, codes in factors.items():
        if source not in single:
            groups[codes] = (*groups.get(codes, ()), source)
    if not {"base", "treatment"} & set(single):
        groups.setdefault(_codes(base, treatment), ("interaction",))
    runs = tuple(range(len(labels)))
    last = groups.pop(runs, ())
    groups[runs] = last if "interaction" in last else (*last, "interaction")
    notes = [f"{it}: one seed, so what it adds is unknown and not in the total" for it in single]
    for sources in groups.values():
        if len(sources) > 1:
            notes.append(f"{' + '.join(sources)}: these runs do not tell them apart")
    return [_Term(sources, np.array(codes)) for codes, sources in groups.items()], tuple(notes)


def _codes(*labels: Codes) -> tuple[int, ...]:
    """Levels numbered in the order in which they occur, so that equal partitions are equal."""
    seen: dict[tuple[int, ...], int] = {}
    rows = zip(*(each.tolist() for each in labels), strict=True)
    return tuple(seen.setdefault(row, len(seen)) for row in rows)


class _Table(NamedTuple):
    """The analysis of variance of a design of so many terms."""

    sources: list[tuple[Source, ...]]
    """What variances are of. Two terms of one source are added up."""
    forms: Floats
    """[terms, runs, runs]: a term's sum of squares as a quadratic form of the rates."""
    degrees: Codes
    """[terms]: degrees of freedom."""
    solve: Floats
    """[sources, terms]: from mean squares to variances."""
    of_mean: Floats
    """[terms]: from mean squares to the variance of the mean of all runs."""

    def variances(self, mean_squares: Floats) -> Floats:
        """[..., sources] from mean squares [..., terms], cut at 0."""
        found: Floats = np.maximum(mean_squares @ self.solve.T, 0)
        return found


def _table(terms: Sequence[_Term], runs: int) -> _Table:
    """A term's sum of squares is type II: what it explains beyond all terms that do not contain it.

    In expectation, a mean square is each variance times the trace of its levels in the form.
    """
    shapes = [np.eye(term.codes.max() + 1)[term.codes] for term in terms]
    forms = np.empty((len(terms), runs, runs))
    for at, term in enumerate(terms):
        others = [
            shape
            for shape, other in zip(shapes, terms, strict=True)
            if not _contains(other.codes, term.codes)
        ]
        forms[at] = _onto([*others, shapes[at]], runs) - _onto(others, runs)
    degrees = np.trace(forms, axis1=1, axis2=2).round().astype(np.int64)
    expected = np.array([[np.sum((form @ it) * it) for it in shapes] for form in forms])
    solve = np.linalg.pinv(expected / np.maximum(degrees, 1)[:, None])
    of_mean = np.array([np.square(shape.sum(axis=0)).sum() for shape in shapes]) / runs**2
    sources = list(dict.fromkeys(term.sources for term in terms))
    merged = np.array([[term.sources == each for term in terms] for each in sources], float)
    return _Table(sources, forms, degrees, merged @ solve, of_mean @ solve)


def _contains(finer: Codes, codes: Codes) -> bool:
    """Whether runs of one level of the first are always of one level of the second."""
    pairs = set(zip(finer.tolist(), codes.tolist(), strict=True))
    return len(pairs) == len(np.unique(finer))


def _onto(shapes: Sequence[Floats], runs: int) -> Floats:
    """The projection [runs, runs] onto the mean and the levels of terms."""
    space, size, _ = np.linalg.svd(np.hstack([np.ones((runs, 1)), *shapes]), full_matrices=False)
    held = space[:, size > 1e-9 * size[0]]
    found: Floats = held @ held.T
    return found


@lru_cache(maxsize=16)
def _chi_squares(degrees: tuple[int, ...]) -> Floats:
    """[draws, terms], the same for all arms of a design: equal runs have equal intervals."""
    return np.random.default_rng(0).chisquare(degrees, (DRAWS, len(degrees)))


def _prompts(draws: Floats, table: _Table, rate: float, per_prompt: float) -> Floats:
    """Draws [draws] of the prompts' variance, the mean of p (1 - p) / n over all seeds.

    That is (m (1 - m) - the variance of k / n) / (n - 1), for a mean rate m that is drawn about
    that of the runs.

    Args:
        draws: [draws, terms], of mean squares.
        table: of these terms.
        rate: the mean of the runs.
        per_prompt: the mean of 1 / (n - 1).
    """
    error = np.sqrt(np.maximum(draws @ table.of_mean, 0))
    mean = np.clip(rate + error * np.random.default_rng(1).normal(size=len(error)), 0, 1)
    total = table.variances(draws).sum(axis=1)
    drawn: Floats = np.clip((mean * (1 - mean) - total) * per_prompt, TINY, MOST * per_prompt)
    return drawn


def _components(
    names: Sequence[tuple[Source, ...]], found: Floats, drawn: Floats, level: float
) -> tuple[Component, ...]:
    """Components from their variances and draws of them, [components] and
    [assumptions, draws, components]. An interval goes from the lowest end to the highest that the
    assumptions give."""
    ends = (1 - level) / 2, (1 + level) / 2
    # No variance is above MOST, though estimates may be; draws of few degrees go far beyond.
    low, high = _ends(np.minimum(drawn, np.maximum(found, MOST)), ends)
    share_low, share_high = _ends(drawn / drawn.sum(axis=2, keepdims=True), ends)
    shares = found / found.sum()
    return tuple(
        Component(
            name,
            float(found[at]),
            Interval(float(low[at]), float(high[at])),
            float(shares[at]),
            Interval(float(share_low[at]), float(share_high[at])),
        )
        for at, name in enumerate(names)
    )


def _ends(drawn: Floats, ends: tuple[float, float]) -> tuple[Floats, Floats]:
    low, high = np.quantile(drawn, ends, axis=1)
    return low.min(axis=0), high.max(axis=0)
