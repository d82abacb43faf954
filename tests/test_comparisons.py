"""Tests, corrections, AUROC and games: against statsmodels 0.15.0 (its figures, computed once),
scipy, and cases worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from jaxorg.stats import (
    auroc,
    benjamini_hochberg,
    bounded_mean,
    equivalent,
    holm,
    least_p,
    log_rank,
    mcnemar,
    paired,
    seed_auroc,
    solve,
    value_interval,
    worst_rows,
)

DIFFERENCES = [0.12, -0.03, 0.20, 0.08, 0.15, 0.01]
P = [0.001, 0.04, 0.03, 0.2, 0.005]
scores = st.lists(st.integers(0, 6), min_size=1, max_size=12)
matrices = st.integers(1, 4).flatmap(
    lambda columns: st.lists(
        st.lists(st.floats(-1, 1), min_size=columns, max_size=columns), min_size=1, max_size=4
    )
)


def test_mcnemar_against_statsmodels() -> None:
    assert mcnemar(12, 3) == pytest.approx(0.03515625, abs=1e-6)
    assert mcnemar(3, 12) == mcnemar(12, 3)
    assert mcnemar(0, 0) == 1
    with pytest.raises(ValueError, match="no counts"):
        mcnemar(-1, 2)


def test_three_seeds_that_agree_decide_nothing() -> None:
    found = paired([1.0, 1.0, 1.0], 1.0)
    assert found.p == 0.25 and found.n == 3 and found.effect == 1
    assert found.interval.high == 1 and found.interval.low == pytest.approx(2 * 0.05 ** (1 / 3) - 1)
    assert np.isnan(paired([0.4], 1.0).interval.low) and paired([0.4], 1.0).p == 1
    with pytest.raises(ValueError, match="at least one"):
        paired([], 1.0)


def test_a_difference_that_nothing_bounds_has_a_p_and_no_interval() -> None:
    found = paired(DIFFERENCES, np.inf)
    assert np.isnan(found.interval.low) and found.p == pytest.approx(6 / 64)


def test_sides_are_equivalent_where_the_interval_is_within_the_margin() -> None:
    for seeds, within in ((8, 0.5), (40, 0.1), (40, 0.05)):
        p = equivalent([0.0] * seeds, within, 1.0)
        assert p == pytest.approx(least_p(seeds, within, 1.0), abs=1e-5)
        assert least_p(seeds, within, 1.0) == pytest.approx((1 - within) ** seeds)
    assert equivalent([0.3] * 40, 0.1, 1.0) == 0.5
    assert equivalent([0.0] * 8, 0.1, 1.0) > 0.05
    assert np.isnan(equivalent([0.1, 0.2], 0.1, np.inf))
    mixed = np.random.default_rng(0).normal(0.02, 0.03, 200)
    p = equivalent(mixed, 0.05, 1.0)
    inside, outside = (bounded_mean(mixed, -1, 1, 1 - 2 * each) for each in (1.1 * p, p / 1.1))
    assert p < 0.05 and inside.low > -0.05 and inside.high < 0.05 < outside.high


def _scipy_sign_flip(differences: list[float]) -> float:
    found = reference.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    return float(found.pvalue)


def test_sign_flip_against_scipy() -> None:
    assert paired(DIFFERENCES, 1.0).p == pytest.approx(_scipy_sign_flip(DIFFERENCES))
    assert paired(DIFFERENCES, 1.0).p == pytest.approx(6 / 64)  # by hand: 3 patterns a side
    assert paired([0.0, 0.0], 1.0).p == 1


@pytest.mark.parametrize("seeds", [1, 3, 6, 16])
def test_sign_flip_has_a_least_p(seeds: int) -> None:
    assert paired([0.3] * seeds, 1.0).p == least_p(seeds)


def test_sign_flip_of_many_seeds_is_sampled() -> None:
    points = np.random.default_rng(0).normal(0.4, 1, 30)
    found = paired(points, np.inf).p
    assert found == pytest.approx(reference.ttest_1samp(points, 0).pvalue, abs=0.01)
    assert found == paired(points, np.inf).p
    assert paired(points + 10, np.inf).p == least_p(30)


def test_holm_against_statsmodels() -> None:
    assert holm(P) == pytest.approx([0.005, 0.09, 0.09, 0.2, 0.02], abs=1e-6)
    untested = holm([0.01, np.nan, 0.04])
    assert untested[:1] == pytest.approx([0.03]) and np.isnan(untested[1])
    assert untested[2] == pytest.approx(0.08)  # three claims were declared, tested or not
    assert holm([]).size == 0


def test_benjamini_hochberg_against_statsmodels() -> None:
    found = benjamini_hochberg(P)
    assert found == pytest.approx([0.005, 0.05, 0.05, 0.2, 0.0125], abs=1e-6)
    among = benjamini_hochberg([*P, np.nan])
    assert among[:5] == pytest.approx(found) and np.isnan(among[5])
    assert np.isnan(benjamini_hochberg([np.nan])).all()


def test_log_rank_against_statsmodels() -> None:
    """Remission of leukaemia under 6-MP and under placebo (Freireich 1963)."""
    drug = [6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    placebo = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]
    found = log_rank(drug, [False] * 9 + [True] * 12, placebo, [False] * 21)
    assert found == pytest.approx(4.1688091093394775e-05, rel=1e-6)


def test_log_rank_of_few_runs_counts_the_ways_to_split_them() -> None:
    """The normal approximation gives these three against three 0.022."""
    early, late = [1, 2, 3], [7, 8, 9]
    assert log_rank(early, [False] * 3, late, [False] * 3) == pytest.approx(2 / 20)
    assert log_rank(early, [False] * 3, [40] * 3, [True] * 3) == pytest.approx(2 / 20)
    assert log_rank(early, [False] * 3, early, [False] * 3) == 1
    rng = np.random.default_rng(0)
    sides = rng.exponential(1, (300, 2, 4))
    p = np.array([log_rank(a, [False] * 4, b, [False] * 4) for a, b in sides])
    assert np.mean(p <= 0.05) <= 0.05 + 2 * (0.05 * 0.95 / 300) ** 0.5


def test_log_rank_sees_nothing_where_nothing_happened() -> None:
    assert log_rank([60, 60], [True, True], [60], [True]) == 1
    assert log_rank([3], [False], [3], [False]) == 1


@given(scores, scores)
def test_auroc_is_that_of_mann_and_whitney(above: list[int], below: list[int]) -> None:
    found = auroc(above, below)
    u = reference.mannwhitneyu(above, below).statistic
    assert found.mean == pytest.approx(u / (len(above) * len(below)), abs=1e-6)
    assert 0 <= found.interval.low <= found.mean + 1e-12
    assert found.mean - 1e-12 <= found.interval.high <= 1
    turned = auroc(below, above)
    assert turned.mean == pytest.approx(1 - found.mean)
    assert turned.interval.high == pytest.approx(1 - found.interval.low, abs=1e-6)


def test_delong_by_hand() -> None:
    # components: positives 2 -> 1/2, 4 -> 1, 3 -> 1; negatives 1 -> 1, 2.5 -> 2/3
    found = auroc([2, 4, 3], [1, 2.5])
    variance = (1 / 12) / 3 + (1 / 18) / 2
    assert found.method == "DeLong" and found.mean == pytest.approx(5 / 6)
    assert found.interval.low == pytest.approx(5 / 6 - 1.959964 * variance**0.5, abs=1e-6)


@pytest.mark.parametrize(("cases", "low"), [(1, 0.207), (8, 0.756), (64, 0.969)])
def test_separated_scores_still_leave_doubt(cases: int, low: float) -> None:
    """Newcombe 2006, method 5, against its equation at an area of 1, solved as a cubic."""
    z, a = 1.959964, np.polynomial.Polynomial([0, 1])
    spread = (2 - a) * (1 + a) + (cases - 1) * ((1 - a) * (1 + a) + a * (2 - a))
    roots = ((1 - a) * (2 - a) * (1 + a) - (z / cases) ** 2 * a * spread).roots()
    (exact,) = (root.real for root in roots if 0 < root.real < 1)
    assert exact == pytest.approx(low, abs=5e-4)
    below, above = np.arange(cases), np.arange(cases) + cases
    apart, turned, seeds = auroc(above, below), auroc(below, above), seed_auroc([1], cases)
    assert (apart.mean, apart.method) == (1, "Newcombe")
    for found in (apart, seeds):
        assert (found.interval.low, found.interval.high) == pytest.approx((exact, 1), abs=1e-6)
    assert (turned.interval.low, turned.interval.high) == pytest.approx((0, 1 - exact), abs=1e-6)


def test_a_side_of_one_case_leaves_doubt() -> None:
    """DeLong's has no word for what another case of that side might have scored."""
    found = auroc([9.5], np.arange(11))
    assert found.method == "Newcombe" and found.interval.low < 0.4


@pytest.mark.parametrize(("shift", "cases"), [(0.0, 8), (1.0, 16), (2.5, 8), (3.5, 32)])
def test_newcombes_interval_covers_the_area(shift: float, cases: int) -> None:
    rng = np.random.default_rng(0)
    above, below = rng.normal(shift, 1, (1000, cases, 1)), rng.normal(0, 1, (1000, 1, cases))
    areas = (above > below).mean(axis=(1, 2))
    found = {value: seed_auroc([value], cases).interval for value in set(areas)}
    true = reference.norm.cdf(shift / 2**0.5)
    covered = np.mean([found[value].low <= true <= found[value].high for value in areas])
    assert (areas == 1).any() == (shift > 2) and covered > 0.93


def test_seeds_that_agree_about_the_same_cases_say_no_more_than_one() -> None:
    one, same = seed_auroc([0.9], 50), seed_auroc([0.9] * 500, 50)
    assert [*vars(one.interval).values()] == pytest.approx([*vars(same.interval).values()])
    for end in (one.interval.low, one.interval.high):  # Newcombe 2006, method 5
        spread = 1 + 49 * ((1 - end) / (2 - end) + end / (1 + end))
        error = np.sqrt(end * (1 - end) * spread / 50**2)
        assert abs(end - 0.9) == pytest.approx(reference.norm.ppf(0.975) * error, abs=1e-6)
    apart = seed_auroc([0.6, 0.9], 50)
    assert apart.interval == bounded_mean([0.6, 0.9])


@pytest.mark.parametrize(("above", "below"), [([], [1]), ([1], []), ([np.nan], [1])])
def test_auroc_refuses(above: list[float], below: list[float]) -> None:
    with pytest.raises(ValueError):
        auroc(above, below)


def test_games_by_hand() -> None:
    pennies = solve([[1, -1], [-1, 1]])
    assert pennies.value == pytest.approx(0, abs=1e-6)
    assert pennies.rows == pytest.approx((0.5, 0.5)) and pennies.columns == pytest.approx(
        (0.5, 0.5)
    )
    # 2 x 2 without a saddle: value (ad - bc) / (a + d - b - c)
    mixed = solve([[0.9, 0.2], [0.4, 0.7]])
    assert mixed.value == pytest.approx((0.63 - 0.08) / 1.0, abs=1e-6)
    assert mixed.rows == pytest.approx((0.3, 0.7)) and mixed.columns == pytest.approx((0.5, 0.5))
    assert worst_rows([[0.9, 0.2], [0.4, 0.7]]) == [0, 1]


@given(matrices)
def test_neither_player_can_do_better(payoff: list[list[float]]) -> None:
    game, matrix = solve(payoff), np.array(payoff)
    assert np.min(np.array(game.rows) @ matrix) == pytest.approx(game.value, abs=1e-6)
    assert np.max(matrix @ np.array(game.columns)) == pytest.approx(game.value, abs=1e-6)
    assert sum(game.rows) == pytest.approx(1) and sum(game.columns) == pytest.approx(1)


@pytest.mark.parametrize("payoff", [[], [[]], [1, 2], [[np.nan]]])
def test_what_is_no_game_is_refused(payoff: object) -> None:
    with pytest.raises(ValueError, match="matrix"):
        solve(payoff)


def test_the_value_of_a_game_lies_between_those_of_the_lowest_and_the_highest_payoffs() -> None:
    rng = np.random.default_rng(0)
    games = np.clip(np.array([[0.9, 0.2], [0.4, 0.7]]) + rng.normal(0, 0.1, (8, 2, 2)), 0, 1)
    found = value_interval(games)
    assert found.low < solve(games.mean(axis=0)).value < found.high
    ends = [[bounded_mean(games[:, i, j], level=1 - 0.05 / 4) for j in (0, 1)] for i in (0, 1)]
    assert found.low == pytest.approx(solve([[end.low for end in row] for row in ends]).value)
    assert found.high == pytest.approx(solve([[end.high for end in row] for row in ends]).value)
    assert np.isnan(value_interval(games[:1]).low)


def test_intervals_of_the_value_of_a_game_cover() -> None:
    """A tenth of seeds keep what blue's second method removes."""
    rng, held, true = np.random.default_rng(0), 0, np.array([[0.5, 0.1], [0.3, 0.4]])
    for _ in range(60):
        kept = (rng.random((8, 1, 1)) < 0.1) * np.array([[0.0, 1.0], [0.0, 0.0]])
        noise = rng.beta(2, 2, (8, 2, 2)) - 0.5
        games = np.where(np.array([[0, 1], [0, 0]]), kept, np.clip(true + noise / 2, 0, 1))
        found = value_interval(games)
        held += found.low <= solve(true).value <= found.high
    assert held >= 0.92 * 60
