"""Paces calls that train: how long they may take, and when a state is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jaxorg.engine.cohort import CHUNK_STEPS

SAFE_POINT_SECONDS = 5.0  # about how long a call that trains may take: a signal is heeded after it
KEEP_SHARE = 0.05  # of the time may go into keeping states for a restart


class Clock:
    """How many steps the next call takes, and whether it is time to keep a state."""

    def __init__(self, now: Callable[[], float] = time.monotonic):
        """`now` gives seconds."""
        self._now = now
        self._pace: float | None = None  # seconds a step took in the last call
        self._kept, self._cost = now(), 0.0  # when a state was kept, in how long

    def next_count(self, step: int, stop: int) -> int:
        """How many steps to take in the next call from `step`: up to a multiple of CHUNK_STEPS,
        where weights are checked, or to `stop`, and no more than a safe point may wait for."""
        if self._pace is None:  # the first call shows
            return 1
        whole = min(stop, (step // CHUNK_STEPS + 1) * CHUNK_STEPS) - step
        return max(1, min(whole, int(SAFE_POINT_SECONDS / max(self._pace, 1e-9))))

    def trained(self, seconds: float, count: int) -> None:
        """Note that `count` steps took so many seconds."""
        self._pace = seconds / count

    def may_keep(self) -> bool:
        """Whether keeping a state now takes a small share of the time, by what it took before."""
        return self._now() - self._kept >= self._cost / KEEP_SHARE

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Around keeping a state."""
        began = self._now()
        yield
        self._kept = self._now()
        self._cost = self._kept - began
