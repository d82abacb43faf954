"""Means over runs that share seeds: intervals that hold the truth as often as they say."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from jaxorg.stats import (
    Interval,
    Labels,
    VarianceRun,
    crossed_mean,
    fewest_levels,
    independent,
    mean_interval,
    paired,
    seed_auroc,
    seed_interval,
    variance_shares,
)

FOUR_BY_FOUR = [(0, o, t) for o in range(4) for t in range(4)]


def of_organisms(values: list[float]) -> list[float]:
    """One value an organism, the same under each of four treatment seeds."""
    return [value for value in values for _ in range(4)]


def student(values: list[float]) -> Interval:
    """Student's t, for independent values that are normal."""
    half = scipy_stats.sem(values) * scipy_stats.t.ppf(0.975, len(values) - 1)
    return Interval(float(np.mean(values) - half), float(np.mean(values) + half))


@pytest.mark.parametrize(
    "labels",
    [
        [(seed, seed, seed) for seed in range(4)],
        [(0, organism, 0) for organism in range(4)],
        [(0, 0, treatment) for treatment in range(4)],
        [(base, base, 0) for base in range(4)],
        [(0, 0, 0)],
        [],
    ],
)
def test_runs_with_seeds_of_their_own_are_independent(labels: list[Labels]) -> None:
    assert independent(labels)
    assert crossed_mean([0.5] * len(labels), labels) is None


def test_runs_of_one_organism_count_once() -> None:
    """Four organisms say what four runs would, under however many treatment seeds."""
    values = [0.2, 0.5, 0.6, 0.9]
    found = crossed_mean(of_organisms(values), FOUR_BY_FOUR)
    assert found is not None and found.means == pytest.approx(values)
    four = student(values)
    assert found.interval.low == pytest.approx(four.low, abs=0.03)
    assert found.interval.high == pytest.approx(four.high, abs=0.03)
    sixteen = student(of_organisms(values))
    assert sixteen.high - sixteen.low < 0.6 * (four.high - four.low)


@pytest.mark.parametrize(("design", "spread"), [
    ((1, 4, 4), (0, 1, 0, 0.1)),
    ((1, 4, 4), (0, 0, 1, 0.1)),
    ((1, 4, 4), (0, 1, 1, 1)),
    ((2, 4, 4), (1, 1, 1, 1)),
    ((4, 2, 2), (1, 0, 0, 0.1)),
])  # fmt: skip
def test_intervals_hold_the_mean_in_nineteen_of_twenty_tables(
    design: tuple[int, int, int], spread: tuple[float, ...]
) -> None:
    rng = np.random.default_rng([*design, 0])
    labels = [(b, o, t) for b, o, t in np.ndindex(*design)]
    b, o, t = design
    shapes = [(b, 1, 1), (b, o, 1), (1, 1, t), (b, o, t)]
    held = 0
    for _ in range(300):
        effects = (s * rng.normal(size=shape) for s, shape in zip(spread, shapes, strict=True))
        found = crossed_mean(sum(effects, np.zeros(design)).ravel(), labels)
        assert found is not None
        held += found.interval.low <= 0 <= found.interval.high
    assert held >= 0.92 * 300  # 95 % less two standard errors and a bit


def test_p_and_interval_say_the_same() -> None:
    rng = np.random.default_rng(0)
    values = 0.5 + rng.normal(size=4).repeat(4) + 0.1 * rng.normal(size=16)
    found = crossed_mean(values, FOUR_BY_FOUR, level=0.8)
    assert found is not None
    off = crossed_mean(values - found.interval.low, FOUR_BY_FOUR)  # so that 0 is at the end
    assert off is not None and off.p == pytest.approx(0.2, abs=0.01)


def test_too_few_runs_to_tell_give_no_interval() -> None:
    labels = [(0, 0, 0), (0, 0, 1), (0, 1, 0)]
    found = crossed_mean([0.1, 0.4, 0.5], labels)
    assert found is not None and np.isnan([found.interval.low, found.p]).all()
    rate = seed_interval([1, 4, 5], [10] * 3, crossed=found)
    assert np.isnan(rate.interval.low) and rate.method == "runs not told apart"
    assert seed_auroc([0.1, 0.4, 0.5], 10, crossed=found).method == "runs not told apart"
    assert mean_interval([0.1, 0.4, 0.5], 0, 1, crossed=found).method == "runs not told apart"


def test_more_runs_than_can_be_taken_apart_give_no_interval() -> None:
    labels = [(0, o, t) for o in range(30) for t in range(30)]
    found = crossed_mean(np.arange(900) / 900, labels)
    assert found is not None and np.isnan(found.interval.low)
    (note,) = variance_shares([VarianceRun(*each, 1 + each[1], 50) for each in labels]).notes[1:]
    assert note.startswith("900 runs are more than the 512")


def test_runs_that_agree_are_no_more_than_their_organisms() -> None:
    crossed = crossed_mean([1.0] * 16, FOUR_BY_FOUR)
    found = mean_interval([1.0] * 16, 0.0, 1.0, crossed=crossed)
    assert found.interval == mean_interval([1.0] * 4, 0.0, 1.0).interval
    rate = seed_interval([50] * 16, [50] * 16, crossed=crossed)
    assert rate.interval == seed_interval([50] * 4, [50] * 4).interval


def test_a_rate_stays_a_rate() -> None:
    k = [0] * 12 + [40, 50, 50, 50]
    rates = [count / 50 for count in k]
    found = seed_interval(k, [50] * 16, crossed=crossed_mean(rates, FOUR_BY_FOUR))
    assert found.method == "generalised"
    assert found.interval == Interval(0, 1)


def test_organisms_of_which_few_differ_leave_as_much_doubt_as_so_many_seeds() -> None:
    """A tenth of organisms keep a backdoor that the others nearly lose: most samples of four show
    none of these, and the runs of the four agree."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(100):
        rates = np.where(rng.random(4) < 0.1, 0.95, 0.02).repeat(4)
        k = rng.binomial(256, rates)
        crossed = crossed_mean(k / 256, FOUR_BY_FOUR)
        found = seed_interval(k, [256] * 16, crossed=crossed).interval
        held += found.low <= 0.113 <= found.high
    assert held >= 0.92 * 100


def test_a_claim_over_shared_organisms_is_as_uncertain_as_these_are() -> None:
    differences = of_organisms([0.1, 0.2, 0.3, 0.5])
    found = paired(differences, 1.0, labels=FOUR_BY_FOUR)
    assert found.p == 0.125 == paired([0.1, 0.2, 0.3, 0.5], 1.0).p  # four signs, two by two
    assert paired(differences, 1.0).p < 0.01 * found.p
    assert found.n == 16 and fewest_levels(FOUR_BY_FOUR) == 4


def test_differences_that_agree_are_not_certain() -> None:
    found = paired([0.01] * 16, 1.0, labels=FOUR_BY_FOUR)
    assert found.p == 0.125 and found.interval.low < 0
