"""Measures what models said: reads stored answers, and needs no model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxorg.engine.measure.scoring import asked_under
from jaxorg.evaluators import Measurement, Response, View
from jaxorg.evaluators.base import OfAnswers

Row = Mapping[str, Any]


class Read(NamedTuple):
    """What an evaluator made of the answers of one step."""

    measurements: Sequence[Measurement]
    outcomes: Sequence[str]  # what each answer is called, "" of one that was not read; or none


def read_answers(view: View, rows: Sequence[Row], evaluator: OfAnswers) -> Read:
    """Measure the answers of one step.

    Args:
        view: what was asked, and what asks judges.
        rows: the answers, in the order in which they were given.
        evaluator: who measures.
    """
    responses = list(_responses(view, rows, evaluator.prompts))
    measurements: list[Measurement] = []
    for condition in view.conditions():
        said = [one for one in responses if one and one.condition == condition]
        measurements += evaluator.measure(view, said)
    outcomes = [evaluator.outcome(view, one) if one else "" for one in responses]
    return Read(measurements, outcomes if any(outcomes) else ())


def _responses(view: View, rows: Sequence[Row], prompts: int | None) -> Iterator[Response | None]:
    """Each answer to one of the first prompts; None of another."""
    asked = {condition: asked_under(view, condition) for condition in view.conditions()}
    seen: dict[tuple[str, bool], int] = defaultdict(int)
    for row in rows:
        condition, greedy = row["condition"], row["greedy"]
        number = seen[condition, greedy]
        seen[condition, greedy] += 1
        item, prompt = asked[condition][number]
        assert prompt == row["prompt"], "answers are to other prompts"
        read = prompts is None or number < prompts
        response = Response(condition, item, prompt, greedy, row["response"], row["ended"])
        yield response if read else None
