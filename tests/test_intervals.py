"""Intervals of rates and means over seeds: by hand, and how often they hold the truth."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from jaxorg.stats import Count, bounded_mean, mean_interval, paired, seed_interval, wilson
from jaxorg.stats.intervals import Floats

counts = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
shares = st.lists(st.sampled_from([0.0, 0.02, 0.3, 0.5, 0.97, 1.0]), min_size=2, max_size=12)


@pytest.mark.parametrize("seeds", [2, 3, 5, 8, 16])
def test_of_all_or_nothing_it_is_clopper_and_pearsons(seeds: int) -> None:
    for k in range(1, seeds):
        exact = binomtest(k, seeds).proportion_ci(method="exact")
        found = bounded_mean([1.0] * k + [0.0] * (seeds - k))
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-9)


@pytest.mark.parametrize(("seeds", "most"), [(1, 0.95), (3, 0.632), (8, 0.312), (16, 0.171)])
def test_seeds_that_agree_at_an_end_leave_what_none_of_so_many_leaves(
    seeds: int, most: float
) -> None:
    assert most == pytest.approx(1 - 0.05 ** (1 / seeds), abs=1e-3)
    assert bounded_mean([0.0] * seeds).low == 0 and bounded_mean([1.0] * seeds).high == 1
    assert bounded_mean([0.0] * seeds).high == pytest.approx(1 - 0.05 ** (1 / seeds))
    assert bounded_mean([1.0] * seeds).low == pytest.approx(0.05 ** (1 / seeds))


def test_seeds_that_agree_elsewhere_leave_both_sides_open() -> None:
    others = 1 - 0.025 ** (1 / 3)
    found = bounded_mean([0.5] * 3)
    assert (found.low, found.high) == pytest.approx((0.5 - 0.5 * others, 0.5 + 0.5 * others))
    found = bounded_mean([-1.0] * 3, -2, 2)  # a quarter of the way
    assert (found.low, found.high) == pytest.approx((-1 - others, -1 + 3 * others))


@given(shares, st.floats(0.1, 5))
def test_it_holds_the_mean_mirrors_and_scales(values: list[float], scale: float) -> None:
    found, mean = bounded_mean(values), float(np.mean(values))
    assert 0 <= found.low <= mean + 1e-12 and mean - 1e-12 <= found.high <= 1
    assert found.high - found.low > 0.1
    turned = bounded_mean([1 - value for value in values])
    assert (turned.low, turned.high) == pytest.approx((1 - found.high, 1 - found.low))
    uneven = np.sort(np.random.default_rng(0).random((100_000, len(values))))
    gaps = np.diff(np.append(np.sort(values), 1.0))
    beyond = float(np.mean(1 - uneven @ gaps > found.high))
    if min(values) < 1:
        assert beyond == pytest.approx(0.025 if any(values) else 0.05, abs=0.003)
    larger = bounded_mean([7 + scale * value for value in values], 7, 7 + scale)
    assert (larger.low, larger.high) == pytest.approx(
        (7 + scale * found.low, 7 + scale * found.high)
    )


def test_more_seeds_narrow_it() -> None:
    widths = [np.ptp([*vars(bounded_mean([0.2, 0.6] * n)).values()]) for n in (1, 4, 16, 64, 256)]
    assert widths == sorted(widths, reverse=True) and widths[-1] < 0.1


Draw = Callable[[np.random.Generator, int], Floats]
WORLDS: dict[str, tuple[Draw, float]] = {
    "much the same": (lambda rng, n: rng.beta(20, 20, n), 0.5),
    "anything": (lambda rng, n: rng.beta(0.5, 0.5, n), 0.5),
    "nearly none": (lambda rng, n: rng.beta(1, 19, n), 0.05),
    "a tenth keep it": (lambda rng, n: np.where(rng.random(n) < 0.1, 1.0, 0.0), 0.1),
    "a tenth keep most of it": (lambda rng, n: np.where(rng.random(n) < 0.1, 0.95, 0.02), 0.113),
    "a third keep it": (lambda rng, n: np.where(rng.random(n) < 1 / 3, 1.0, 0.0), 1 / 3),
}


@pytest.mark.parametrize("seeds", [3, 5, 8, 16])
@pytest.mark.parametrize("world", WORLDS)
def test_intervals_of_rates_cover(world: str, seeds: int) -> None:
    """Student's t holds a backdoor that a tenth of seeds keep in 30 % of samples of three, a
    bootstrap of seeds and prompts in 50 % of eight."""
    draw, truth = WORLDS[world]
    rng, held = np.random.default_rng(seeds), 0
    for _ in range(200):
        found = seed_interval(rng.binomial(256, draw(rng, seeds)), [256] * seeds).interval
        held += found.low <= truth <= found.high
    assert held >= 0.92 * 200


@pytest.mark.parametrize("seeds", [3, 8])
@pytest.mark.parametrize("world", ["a tenth keep it", "a tenth keep most of it", "nearly none"])
def test_intervals_of_differences_cover(world: str, seeds: int) -> None:
    draw, truth = WORLDS[world]
    rng, held = np.random.default_rng(seeds), 0
    for _ in range(200):
        other = rng.beta(2, 8, seeds)  # of mean 0.2, where the seeds of the first are any
        found = paired(draw(rng, seeds) - other, 1.0).interval
        held += found.low <= truth - 0.2 <= found.high
    assert held >= 0.92 * 200


@pytest.mark.parametrize("seeds", [2, 4, 8])
@pytest.mark.parametrize("rare", [0.02, 0.1, 0.3])
def test_intervals_of_seeds_that_often_agree_cover_the_mean(seeds: int, rare: float) -> None:
    """Most seeds have 0, some have 1: each outcome, by how likely it is."""
    covered = 0.0
    for others in range(seeds + 1):
        found = mean_interval([1.0] * others + [0.0] * (seeds - others), 0.0, 1.0).interval
        if found.low <= rare <= found.high:
            covered += binom.pmf(others, seeds, rare)
    assert covered > 0.95


def test_one_seed_speaks_for_itself_alone() -> None:
    assert seed_interval([3], [10]).interval == wilson(3, 10)
    assert seed_interval([3], [10]).method == "Wilson"
    assert seed_interval([3, 3], [10, 10]).method == "bounded mean"
    assert math.isnan(mean_interval([1.0], 0, 1).interval.low)
    assert mean_interval([1.0], 0, 1).method == "single seed"


def test_seeds_that_share_prompts_know_no_more_than_these_tell() -> None:
    found = seed_interval([0] * 64, [8] * 64).interval
    assert (found.low, found.high) == (0.0, wilson(0, 8).high)


@pytest.mark.parametrize(("low", "high"), [(-math.inf, math.inf), (0.0, math.inf)])
def test_a_figure_without_ends_has_no_interval(low: float, high: float) -> None:
    mean, found, method = mean_interval([1.0, 2.0, 3.0], low, high)
    assert (mean, method) == (2.0, "unbounded")
    assert math.isnan(found.low) and math.isnan(found.high)


@given(st.lists(counts, min_size=1, max_size=9))
def test_seed_interval_holds_its_mean(found: list[Count]) -> None:
    k, n = zip(*found, strict=True)
    mean, interval, _ = seed_interval(k, n)
    assert 0 <= interval.low <= mean <= interval.high <= 1


@pytest.mark.parametrize(("k", "n"), [([], []), ([1], [1, 2]), ([2], [1]), ([0], [0])])
def test_seed_interval_refuses_what_is_no_count(k: list[int], n: list[int]) -> None:
    with pytest.raises(ValueError):
        seed_interval(k, n)


@pytest.mark.parametrize("call", [bounded_mean, mean_interval])
def test_a_mean_of_nothing_is_refused(call: Callable[[list[float]], object]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        call([])
