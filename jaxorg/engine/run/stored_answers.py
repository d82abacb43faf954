"""Lets evaluators read what models answered before: that needs no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from jaxorg.engine.measure.read_answers import read_answers
from jaxorg.engine.run.inputs import Inputs
from jaxorg.evaluators.base import OfAnswers
from jaxorg.planning.measurements import ANSWERS, Names
from jaxorg.planning.phases import Phase, evaluation_steps
from jaxorg.scorers.endpoint import Ask
from jaxorg.scorers.judge import Judge
from jaxorg.storage.glance import Record
from jaxorg.storage.store import Store


def lacks_reading_alone(phase: Phase, names: Sequence[str]) -> bool:
    """Whether stored answers are all that these evaluators need."""
    evaluators = phase.config.evaluate.evaluators
    return ANSWERS not in names and all(isinstance(evaluators[n], OfAnswers) for n in names)


def read_stored_answers(
    phase: Phase,
    unread: Mapping[int, Sequence[str]],
    wanted: Mapping[int, Names],
    inputs: Inputs,
    store: Store,
    asks: Callable[[Judge], Ask],
) -> None:
    """Measure the answers of a phase that are stored, and store that.

    Args:
        phase: the phase.
        unread: the evaluators that have not read them, by step.
        wanted: what the phase's measurements are called.
        inputs: for what was asked.
        store: where answers lie and measurements go.
        asks: what asks a judge that has no endpoint.
    """
    steps = evaluation_steps(phase)
    found: dict[str, Record] = {}
    for step, names in unread.items():
        answers = store.answers_to_read(phase.fingerprint, wanted[step][ANSWERS])
        view = inputs.prepared(phase, step == steps[-1], tuple(names)).view
        view = replace(view, asks=asks)
        about = {"step": step, "tokens": answers["trained"]}
        for name in names:
            evaluator = phase.config.evaluate.evaluators[name]
            assert isinstance(evaluator, OfAnswers)
            read = read_answers(view, answers["samples"], evaluator)
            rows = [{**about, **m._asdict()} for m in read.measurements]
            found[wanted[step][name]] = {"evals": rows, "outcomes": [*read.outcomes]}
    store.add_measurements(phase.fingerprint, found)
