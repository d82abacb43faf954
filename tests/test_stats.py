"""The statistics: cases worked by hand, bounds that always hold, and how often intervals cover."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxorg.stats import (
    Count,
    gap_recovered,
    half_life,
    kaplan_meier_median,
    recovery,
    relearning,
    removal_area,
    return_peak,
    returned,
    wilson,
)

rates = st.lists(st.floats(0, 1), min_size=1, max_size=12)
counts = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def test_wilson_against_published_values() -> None:
    # Newcombe 1998, table I, method 3
    assert (wilson(81, 263).low, wilson(81, 263).high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert (wilson(0, 20).low, wilson(0, 20).high) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(0, 100).high == pytest.approx(0.037, abs=5e-4)


@pytest.mark.parametrize(("k", "n"), [(-1, 4), (5, 4), (0, 0)])
def test_wilson_refuses_what_is_no_count(k: int, n: int) -> None:
    with pytest.raises(ValueError):
        wilson(k, n)


@given(counts)
def test_wilson_holds_the_rate_and_mirrors(count: Count) -> None:
    k, n = count
    found, mirrored = wilson(k, n), wilson(n - k, n)
    assert 0 <= found.low <= k / n + 1e-12
    assert k / n - 1e-12 <= found.high <= 1
    assert found.low == pytest.approx(1 - mirrored.high, abs=1e-9)


def test_half_life_on_an_evaluated_step() -> None:
    found = half_life([1, 3, 7], [0.9, 0.5, 0.1], start=1.0)
    assert found.value == pytest.approx(3) and not found.censored


def test_half_life_between_steps_is_linear_in_log_step() -> None:
    # from 0.8 at step 1 to 0.2 at step 7: half way in rate is half way from log 2 to log 8
    assert half_life([1, 7], [0.8, 0.2], start=1.0).value == pytest.approx(3)


def test_half_life_is_relative_to_the_start_and_takes_the_first_fall() -> None:
    assert half_life([1, 3, 7], [0.4, 0.8, 0.1], start=0.8).value == pytest.approx(1)


def test_half_life_never_reached_is_censored_at_the_last_step() -> None:
    found = half_life([1, 10, 100], [1.0, 0.9, 0.6], start=1.0)
    assert found.value == pytest.approx(100) and found.censored


def test_step_zero_may_be_given_or_left_out() -> None:
    given_zero = half_life([0, 1, 7], [1.0, 0.8, 0.2], 1.0)
    assert given_zero == half_life([1, 7], [0.8, 0.2], 1.0)
    assert removal_area([0, 1], [1.0, 0.0], 1.0) == removal_area([1], [0.0], 1.0)


def test_no_behaviour_has_no_half_life_and_no_area() -> None:
    found = half_life([1, 2], [0.0, 0.0], start=0.0)
    assert math.isnan(found.value) and not found.censored
    assert math.isnan(removal_area([1, 2], [0.0, 0.0], start=0.0))
    assert math.isnan(removal_area([], [], start=1.0))


@pytest.mark.parametrize("steps", [[2, 1], [1, 1], [-1, 2], [1, 2, 3]])
def test_curves_need_ascending_steps(steps: list[int]) -> None:
    with pytest.raises(ValueError):
        half_life(steps, [0.5, 0.4], 1.0)


def test_removal_area_by_hand() -> None:
    assert removal_area([1, 3], [1.0, 1.0], start=1.0) == pytest.approx(1)
    assert removal_area([1, 3], [0.5, 0.0], start=1.0) == pytest.approx((0.75 + 0.25) / 2)
    assert removal_area([1, 3], [0.4, 0.4], start=0.8) == pytest.approx((0.75 + 0.5) / 2)
    assert removal_area([1, 3], [1.0, 1.0], start=0.8) == pytest.approx(1)  # capped at the start


@given(rates, st.floats(0.01, 1), st.floats(0, 1))
def test_curve_figures_stay_in_bounds_and_fall_with_the_curve(
    curve: list[float], start: float, shrink: float
) -> None:
    steps = np.cumsum(np.arange(1, len(curve) + 1))
    lower = [shrink * rate for rate in curve]
    area, time = removal_area(steps, curve, start), half_life(steps, curve, start)
    assert 0 <= area <= 1 + 1e-12
    assert removal_area(steps, lower, start) <= area + 1e-12
    assert 0 < time.value <= steps[-1] * (1 + 1e-9)
    assert half_life(steps, lower, start).value <= time.value * (1 + 1e-9)
    assert 0 <= return_peak(curve) <= 1


def test_return_peak_by_hand() -> None:
    assert return_peak([1.0, 0.2, 0.5, 0.1, 0.3]) == pytest.approx(0.3)
    assert return_peak([0.9, 0.5, 0.5, 0.1]) == 0
    assert math.isnan(return_peak([]))


def test_relearning_takes_the_first_rise_between_steps_linear_in_log_step() -> None:
    # from 0.2 at step 1 to 0.8 at step 7: half way in rate is half way from log 2 to log 8
    found = relearning([1, 7, 9], [0.2, 0.8, 0.1], start=0.0, target=0.5)
    assert found.value == pytest.approx(3) and not found.censored
    assert not relearning([3], [0.5], start=0.0, target=0.5).censored


def test_relearning_that_never_comes_is_censored_and_what_never_went_has_none() -> None:
    never = relearning([1, 60], [0.1, 0.4], start=0.0, target=0.5)
    assert never.value == pytest.approx(60) and never.censored
    there = relearning([1, 60], [0.6, 0.9], start=0.5, target=0.5)
    assert math.isnan(there.value) and not there.censored


def test_what_came_back_is_a_share_of_the_organisms() -> None:
    assert returned(0.8, 0.2, 0.6) == pytest.approx(0.5)
    assert returned(1.0, 0.4, 0.1) == pytest.approx(-0.3)
    assert math.isnan(returned(0.0, 0.0, 0.0))


def test_recovery_by_hand() -> None:
    assert recovery(0.6, 0.8) == pytest.approx(0.75)
    assert math.isnan(recovery(0.6, 0.0))
    assert gap_recovered(locked=0.2, unlocked=0.8, after=0.5) == pytest.approx(0.5)
    assert gap_recovered(locked=0.2, unlocked=0.8, after=0.1) == pytest.approx(-1 / 6)
    assert math.isnan(gap_recovered(locked=0.75, unlocked=0.8, after=0.9))


def test_kaplan_meier_median_by_hand() -> None:
    # survival 6/7, 5/7, 4/7, 3/7: below one half at the fourth time
    found = kaplan_meier_median([3, 5, 8, 9, 11, 40, 40], [False] * 5 + [True] * 2)
    assert found.median == 9
    assert found.censored_share == pytest.approx(2 / 7)
    assert found.low == 3 and found.high is None


def test_kaplan_meier_censoring_before_the_median_moves_it() -> None:
    # 1, 2+, 3, 4: survival 3/4, then 3/8 at 3
    assert kaplan_meier_median([1, 2, 3, 4], [False, True, False, False]).median == 3
    assert kaplan_meier_median([1, 2, 3, 4], [False] * 4).median == 2


def test_kaplan_meier_bounds_agree_with_published_ones() -> None:
    """Remission of leukaemia under 6-MP (Freireich 1963): median 23, log-log bounds 13 and none."""
    times = [6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    found = kaplan_meier_median(times, [False] * 9 + [True] * 12)
    assert (found.median, found.low, found.high) == (23, 13, None)


def test_a_median_of_fewer_than_five_runs_has_no_interval() -> None:
    found = kaplan_meier_median([1, 2, 3, 4], [False] * 4)
    assert (found.median, found.low, found.high) == (2, None, None)
    found = kaplan_meier_median([1, 2, 3, 4, 5], [False] * 5)
    assert found.low == 1


def test_kaplan_meier_without_a_median() -> None:
    found = kaplan_meier_median([320, 320], [True, True])
    assert (found.median, found.low, found.high, found.censored_share) == (None, None, None, 1.0)


@pytest.mark.parametrize(("values", "censored"), [([], []), ([1.0], []), ([math.nan], [False])])
def test_kaplan_meier_refuses(values: list[float], censored: list[bool]) -> None:
    with pytest.raises(ValueError):
        kaplan_meier_median(values, censored)
