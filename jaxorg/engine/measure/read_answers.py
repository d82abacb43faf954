"""Measures what models said: reads stored answers, and needs no model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxorg.engine.measure.scoring import asked_under
from jaxorg.evaluators import Measurement, Response, View
from jaxorg.evaluators.base import OfAnswers

Row = Mapping[str, Any]


class Read(NamedTuple):
    """What an evaluator made of the answers of one step."""

    measurements: Sequence[Measurement]
    outcomes: Sequence[str]  # what each answer is called; none where that is not its to say


def read_answers(view: View, rows: Sequence[Row], evaluator: OfAnswers) -> Read:
    """Measure the answers of one step.

    Args:
        view: what was asked.
        rows: the answers, in the order in which they were given.
        evaluator: who measures.
    """
    measurements: list[Measurement] = []
    by_condition = _responses(view, rows, evaluator.prompts)
    for said in by_condition.values():
        measurements += evaluator.measure(view, said)
    outcomes = [evaluator.outcome(view, one) for said in by_condition.values() for one in said]
    return Read(measurements, outcomes if any(outcomes) else ())


def _responses(
    view: View, rows: Sequence[Row], prompts: int | None
) -> Mapping[str, Sequence[Response]]:
    """Answers to the first prompts, by condition."""
    asked = {condition: asked_under(view, condition) for condition in view.conditions()}
    found: dict[str, list[Response]] = defaultdict(list)
    seen: dict[tuple[str, bool], int] = defaultdict(int)
    for row in rows:
        condition, greedy = row["condition"], row["greedy"]
        number = seen[condition, greedy]
        seen[condition, greedy] += 1
        item, prompt = asked[condition][number]
        assert prompt == row["prompt"], "answers are to other prompts"
        if prompts is None or number < prompts:
            response = Response(condition, item, prompt, greedy, row["response"], row["ended"])
            found[condition].append(response)
    return found
