"""When calls that train end and states are kept, by a clock that a test turns."""

import pytest

from jaxorg.engine.cohort import CHUNK_STEPS
from jaxorg.engine.run.clock import KEEP_SHARE, SAFE_POINT_SECONDS, Clock


class Hands:
    """A clock's time in seconds."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def paced(seconds_a_step: float) -> Clock:
    clock = Clock(Hands())
    clock.trained(8 * seconds_a_step, 8)
    return clock


def test_the_first_call_takes_one_step() -> None:
    assert Clock(Hands()).next_count(0, 1000) == 1


def test_quick_steps_end_where_weights_are_checked() -> None:
    quick = paced(1e-6)
    assert quick.next_count(0, 1000) == CHUNK_STEPS
    assert quick.next_count(1, 1000) == CHUNK_STEPS - 1
    assert quick.next_count(CHUNK_STEPS, 1000) == CHUNK_STEPS
    assert paced(0.0).next_count(0, 1000) == CHUNK_STEPS


def test_no_call_goes_beyond_its_stop() -> None:
    assert paced(1e-6).next_count(3, 10) == 7
    assert paced(1e-6).next_count(CHUNK_STEPS - 1, CHUNK_STEPS + 1) == 1


def test_slow_steps_wait_for_a_safe_point_no_longer_than_they_may() -> None:
    assert paced(SAFE_POINT_SECONDS / 4).next_count(0, 1000) == 4
    assert paced(3 * SAFE_POINT_SECONDS).next_count(0, 1000) == 1


def test_the_last_call_sets_the_pace() -> None:
    clock = paced(SAFE_POINT_SECONDS / 4)
    clock.trained(SAFE_POINT_SECONDS, 2)
    assert clock.next_count(0, 1000) == 2


def test_keeping_states_takes_a_small_share_of_the_time() -> None:
    hands = Hands()
    clock = Clock(hands)
    assert clock.may_keep()  # what it takes is not known yet
    with clock.keeping():
        hands.seconds += 3
    assert not clock.may_keep()
    hands.seconds += 3 / KEEP_SHARE - 1
    assert not clock.may_keep()
    hands.seconds += 1
    assert clock.may_keep()


def test_a_state_that_could_not_be_kept_is_due_as_before() -> None:
    hands = Hands()
    clock = Clock(hands)
    with pytest.raises(OSError), clock.keeping():
        hands.seconds += 3
        raise OSError
    assert clock.may_keep()
