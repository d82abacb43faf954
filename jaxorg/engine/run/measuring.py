"""Measures the phases of a group, and notes what it finds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from jaxorg.distributed import processes
from jaxorg.engine.cohort import Scorer
from jaxorg.engine.measure import activations
from jaxorg.engine.measure.read_answers import read_answers
from jaxorg.engine.params import Params
from jaxorg.engine.run.inputs import Samples
from jaxorg.engine.run.lanes import Lanes
from jaxorg.engine.run.recorder import Recorder
from jaxorg.engine.run.surroundings import Surroundings
from jaxorg.evaluators import Evaluator, View
from jaxorg.evaluators.base import OfAnswers
from jaxorg.planning.measurements import ANSWERS
from jaxorg.planning.phases import Phase


class Measuring:
    """What is to be measured of a group's phases at each step."""

    def __init__(self, around: Surroundings, scorer: Scorer, lanes: Lanes, notes: Recorder):
        self._around, self._scorer, self._lanes, self._notes = around, scorer, lanes, notes

    def measure(self, params: Params, final: bool) -> None:
        """Note this step's measurements, as far as they are wanted and not there yet.

        Args:
            params: the models', stacked, as they are used.
            final: whether the phases are at their end.
        """
        began, phases, inputs = time.monotonic(), self._lanes.every, self._around.inputs
        missing = self._notes.missing()
        names = tuple(sorted({name for of_lane in missing for name in of_lane}))
        measurer, evaluate = inputs.measurer(phases[0]), phases[0].config.evaluate
        evaluators = {n: e for n, e in evaluate.evaluators.items() if n in names}
        prepared = [
            inputs.prepared(phase, final, names, self._audited_samples(phase)) for phase in phases
        ]
        models, views = (self._scorer, params), [each.view for each in prepared]
        forced = measurer.score(*models, prepared)
        seeds = [phase.seed for phase in phases]
        inside = activations.measure(measurer, *models, views, evaluators, seeds)
        for lane, of_lane in enumerate(missing):
            for name, found in {**forced[lane], **inside[lane]}.items():
                if name in of_lane:
                    self._notes.measured(lane, name, found)
        if ANSWERS in names:
            said = measurer.answers(*models, prepared, evaluate, self._lanes.keys)
            for lane, of_lane in enumerate(missing):
                if ANSWERS in of_lane:
                    self._notes.said(lane, said[lane])
        processes.first("answers", lambda: self._read_answers(missing, views, evaluators))
        self._notes.spend(began, self._around.devices)

    def _read_answers(
        self,
        missing: Sequence[Sequence[str]],
        views: Sequence[View],
        evaluators: Mapping[str, Evaluator],
    ) -> None:
        """Note what evaluators make of this step's answers, those that are there already among
        them."""
        for lane, of_lane in enumerate(missing):
            for name in of_lane:
                evaluator, subject = evaluators.get(name), self._lanes.phases[lane].subject
                if isinstance(evaluator, OfAnswers) and not evaluator.waits(subject):
                    read = read_answers(views[lane], self._notes.answers(lane), evaluator)
                    self._notes.measured(lane, name, *read)

    def _audited_samples(self, phase: Phase) -> Samples:
        """What was sampled of the organism that a phase audits."""
        if (audited := phase.audits) is None:
            return ()
        store = self._around.store
        named = self._around.named(audited)
        samples: Samples = processes.first(
            "samples", lambda: store.record(audited, named)["samples"]
        )
        return samples
