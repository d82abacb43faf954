"""Traces of what devices do, for XProf and Perfetto: a few calls that train, one measurement."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Literal, Protocol

import jax

from jaxorg.errors import Refusal

LOG = logging.getLogger(__name__)
Work = Literal["training", "measurement"]
MOST: dict[Work, int] = {"training": 3, "measurement": 1}  # traces, so that a folder stays small


class Traced(Protocol):
    """Makes what is done inside a trace, or not."""

    def __call__(self, work: Work, program: Hashable) -> AbstractContextManager[None]:
        """`program` names what `work` runs: when that is new, it compiles."""


def nothing_traced(work: Work, program: Hashable) -> AbstractContextManager[None]:
    """Trace nothing."""
    return nullcontext()


class Profile:
    """Writes traces into a folder. Where that fails it is said, and the sweep goes on without."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._used: set[tuple[Work, Hashable]] = set()
        self._traces = dict.fromkeys(MOST, 0)  # how many there are
        self._options = jax.profiler.ProfileOptions()
        self._options.python_tracer_level = 0  # each Python call would make it ten times as large
        self._works = True

    @contextmanager
    def traced(self, work: Work, program: Hashable) -> Iterator[None]:
        """Trace what is done inside, unless it compiles or there are traces enough."""
        compiled = (work, program) in self._used
        self._used.add((work, program))
        if not (compiled and self._works and self._traces[work] < MOST[work]):
            yield
            return
        self._start(self._folder / f"{work}-{self._traces[work] + 1}")
        try:
            yield
        finally:
            self._stop(work)

    def told(self) -> str:
        """What there is now, in one line."""
        if not any(self._traces.values()):
            return "--profile: no trace was written: nothing ran again after it was compiled"
        counts = ", ".join(f"{work} {count}" for work, count in self._traces.items())
        return f"--profile: traces in {self._folder}: {counts}"

    def _start(self, place: Path) -> None:
        try:
            jax.profiler.start_trace(place, profiler_options=self._options)
        except Exception as error:
            self._give_up(error)

    def _stop(self, work: Work) -> None:
        if not self._works:
            return
        try:
            jax.profiler.stop_trace()
            self._traces[work] += 1
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._works = False
        LOG.warning("jaxorg: --profile: traces are not written any more (%s)", error)


def check_folder(folder: Path) -> None:
    """See that traces may be written to a folder.

    Raises:
        Refusal: it is there and not empty, or is no folder.
    """
    try:
        empty = not any(folder.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise Refusal(f"--profile: {str(folder)!r} is no folder ({error.strerror})") from error
    if not empty:
        raise Refusal(f"--profile: {str(folder)!r} is not empty; give a new folder")
