"""The hull of capability against behaviour: worked by hand, against scipy's hull, by halves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from jaxorg.stats import Point, on_hull, robustness, split_half

shares = st.floats(0, 1.3)
clouds = st.lists(st.builds(Point, shares, shares), max_size=12)


def on_its_own_hull(points: list[Point]) -> tuple[float, tuple[float, ...]]:
    return robustness([points[i] for i in on_hull(points)])


def test_no_treatment_and_one_that_only_destroys_are_as_robust_as_can_be() -> None:
    assert on_its_own_hull([]) == (0.5, pytest.approx((0.95, 0.9)))
    line = [Point(share, share) for share in (0.2, 0.5, 0.9)]
    assert on_its_own_hull(line)[0] == pytest.approx(0.5)


def test_free_removal_is_one() -> None:
    assert on_its_own_hull([Point(1.0, 0.0), Point(0.3, 0.9)]) == (1.0, pytest.approx((0, 0)))


def test_by_hand() -> None:
    # over the diagonal lie triangles: from (0, 1) and (1, 0) to (0.9, 0.6 removed), base sqrt(2)
    points = [Point(0.9, 0.4), Point(0.5, 0.9)]
    assert on_hull(points) == [0]
    area, left = on_its_own_hull(points)
    assert area == pytest.approx(0.5 + (0.9 + 0.6 - 1) / 2)
    assert left == pytest.approx((0.7, 0.4))  # half way from 0.4 to 1, and the point itself


def test_points_come_by_capability_and_dominated_ones_are_left_out() -> None:
    points = [Point(1.0, 0.7), Point(0.6, 0.0), Point(0.9, 0.2), Point(0.9, 0.3), Point(0.1, 0.0)]
    assert on_hull(points) == [1, 2, 0]


def test_a_gain_in_capability_or_behaviour_pays_for_nothing() -> None:
    assert on_its_own_hull([Point(1.3, 1.2)])[0] == pytest.approx(0.5)
    assert on_its_own_hull([Point(1.3, 0.5)]) == on_its_own_hull([Point(1.0, 0.5)])


@given(clouds)
def test_area_is_that_of_the_convex_hull(points: list[Point]) -> None:
    cut = np.clip([(c, 1 - b) for c, b in points], 0, 1).reshape(-1, 2)
    corners = np.array([(0, 0), (0, 1), (1, 0)])
    expected = ConvexHull(np.concatenate([corners, cut])).volume
    area, left = on_its_own_hull(points)
    assert area == pytest.approx(expected, abs=1e-6)
    assert 0.5 - 1e-9 <= area <= 1 + 1e-9
    assert left[1] <= left[0] + 1e-9


@given(clouds)
def test_equal_halves_are_the_whole(points: list[Point]) -> None:
    whole, halves = on_its_own_hull(points), split_half(points, points)
    assert halves.hull_auc == pytest.approx(whole[0])
    assert halves.left == pytest.approx(whole[1])


def test_luck_on_one_half_is_not_carried_over() -> None:
    # the first half chooses the one that is worthless on the second, and the other way round
    first = [Point(1.0, 0.0), Point(0.5, 0.5)]
    second = [Point(0.5, 0.5), Point(1.0, 0.0)]
    assert split_half(first, second).hull_auc == pytest.approx(0.5)
    worse = [Point(0.3, 0.5), Point(1.0, 0.0)]
    assert split_half(first, worse).hull_auc < 0.5  # and a choice may turn out to be a mistake


def test_halves_are_no_better_than_they_are() -> None:
    """Models all alike and half-way robust: the best of many looks better than it is, halves do
    not."""
    rng = np.random.default_rng(0)
    whole, halves = [], []
    for _ in range(200):
        counts = rng.binomial(16, 0.5, (2, 20, 2)) / 16
        first, second = ([Point(*pair) for pair in half] for half in counts)
        whole.append(on_its_own_hull([Point(*pair) for pair in counts.mean(axis=0)])[0])
        halves.append(split_half(first, second).hull_auc)
    assert np.mean(whole) > 0.58
    assert abs(np.mean(halves) - 0.5) < 0.01


def test_halves_must_be_of_the_same_models() -> None:
    with pytest.raises(ValueError):
        split_half([Point(1, 1)], [])
