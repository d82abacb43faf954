"""What is noted of phases that are made side by side, until they are stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from jaxorg.distributed import processes
from jaxorg.engine.batch import AnyBatch
from jaxorg.engine.step import StepLog
from jaxorg.evaluators import Measurement
from jaxorg.planning.measurements import ANSWERS
from jaxorg.planning.phases import Phase
from jaxorg.storage.glance import Record
from jaxorg.storage.layout import STEPS
from jaxorg.storage.store import Store

Rows = Sequence[Mapping[str, Any]]


class Recorder:
    """A record a lane. Lanes beyond the phases are idle, and what they note goes nowhere."""

    def __init__(
        self,
        phases: Sequence[Phase],
        lanes: int,
        store: Store,
        wanted: Callable[[str], Mapping[int, Mapping[str, str]]],
    ):
        """Begin records in which nothing is noted.

        Args:
            phases: one a lane, from the first on.
            lanes: how many the program has.
            store: where phases and measurements are kept.
            wanted: by a phase's fingerprint, what its measurements are called, by step and
                evaluator.
        """
        self._phases, self._store, self._wanted = phases, store, wanted
        self.records = [new_record() for _ in range(lanes)]
        self.step = 0

    def resume(self, progress: Sequence[Record]) -> None:
        """Go on with what an earlier try had noted, one a lane."""
        self.step = progress[0]["step"]
        self.records = [{**new_record(), **deepcopy(each["record"])} for each in progress]

    def progress(self, lane: int) -> Record:
        """What `resume` takes."""
        return {"step": self.step, "record": self.records[lane]}

    def add_chunk(self, chunk: AnyBatch, log: StepLog, count: int) -> None:
        """Note `count` steps.

        Args:
            chunk: what they were trained on, [run, CHUNK_STEPS, B].
            log: what they showed, on the host, [run, CHUNK_STEPS], of which the first `count` are
                meant.
            count: steps.
        """
        self.step += count
        tokens = chunk.real.sum(axis=1)
        for lane, (record, seen) in enumerate(zip(self.records, tokens, strict=True)):
            for column, name in STEPS.items():
                values = getattr(log, column)[lane, :count]
                record[name] += [float(value) if np.isfinite(value) else None for value in values]
            record["tokens"] += int(seen)

    def note(self, lane: int, found: Sequence[Measurement]) -> None:
        """Note what training itself found."""
        self.records[lane]["evals"] += self._rows(lane, found)

    def missing(self) -> list[list[str]]:
        """The evaluators of each phase whose rows at this step are wanted and are not there yet,
        neither in what was noted nor in what is stored."""
        lanes = range(len(self._phases))
        return processes.first("missing", lambda: [self._missing(lane) for lane in lanes])

    def measured(
        self, lane: int, evaluator: str, found: Sequence[Measurement], outcomes: Sequence[str] = ()
    ) -> None:
        """Note what an evaluator measured of a lane at this step.

        Args:
            lane: whose.
            evaluator: its name.
            found: what it measured.
            outcomes: what it calls the lane's answers, in their order; empty if it names none.
        """
        self._note(lane, evaluator, {"evals": self._rows(lane, found), "outcomes": [*outcomes]})

    def said(self, lane: int, answers: Rows) -> None:
        """Note what a lane's model answered at this step."""
        rows = [{"step": self.step, **row} for row in answers]
        self._note(lane, ANSWERS, {"samples": rows, "trained": self.records[lane]["tokens"]})

    def answers(self, lane: int) -> Rows:
        """What a lane's model answered at this step: what was noted, or is stored."""
        fingerprint = self._phases[lane].fingerprint
        name = self._wanted(fingerprint)[self.step][ANSWERS]
        noted = self.records[lane]["measured"]
        found = noted.get(name) or self._store.answers_to_read(fingerprint, name)
        rows: Rows = found["samples"]
        return rows

    def spend(self, began: float, devices: int) -> float:
        """Account for the time since `began` in equal shares; the seconds that it was."""
        seconds = time.monotonic() - began
        for record in self.records:
            record["chip_seconds"] += seconds * devices / len(self._phases)
        return seconds

    def _note(self, lane: int, evaluator: str, found: Record) -> None:
        name = self._wanted(self._phases[lane].fingerprint)[self.step][evaluator]
        self.records[lane]["measured"][name] = found

    def _missing(self, lane: int) -> list[str]:
        fingerprint = self._phases[lane].fingerprint
        there = {*self.records[lane]["measured"], *self._store.measured(fingerprint)}
        wanted = self._wanted(fingerprint).get(self.step, {})
        return [evaluator for evaluator, name in wanted.items() if name not in there]

    def _rows(self, lane: int, found: Sequence[Measurement]) -> list[Record]:
        seen = self.records[lane]["tokens"]
        return [{"step": self.step, "tokens": seen, **m._asdict()} for m in found]


def new_record() -> Record:
    """A record in which nothing is noted."""
    return {
        "evals": [],
        **{name: [] for name in STEPS.values()},
        "tokens": 0,
        "measured": {},
        "diverged": None,
        "chip_seconds": 0.0,
    }
