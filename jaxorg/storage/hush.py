"""Keeps Orbax from burying the one line that a person needs."""

from __future__ import annotations

import logging
import sys
import warnings
from functools import cache


@cache
def hush_orbax() -> None:
    """Let Orbax raise what goes wrong, and say nothing besides: its threads log it, too, and when a
    write fails, those of other arrays find the event loop closed, some of them before it is raised.
    That would bury the one line that a person needs."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    report = sys.unraisablehook

    def heed(found: sys.UnraisableHookArgs) -> None:
        if str(found.exc_value) != "Event loop is closed":
            report(found)

    sys.unraisablehook = heed
