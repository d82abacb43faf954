"""Measurements, one file each.

An evaluator is a module with a `VERSION`, to be raised when its rows change; `AT_EVERY_STEP`, or at
the end of phases alone; and `KEYS`, the keys of `evaluate` that shape its rows besides the numbers
of prompts. A scored one has two functions besides: `requests(view)` names the completions it wants
teacher-forced, `measure(view, scores)` turns their scores into measurements. Requests that several
make are scored once. The others measure what is generated (`responses`) or seen inside the model
(`probe`, `noise`).
"""

from collections.abc import Mapping
from typing import Protocol, cast

from jaxorg import discovery
from jaxorg.data.tokenized import Example
from jaxorg.evaluators.base import Evaluation, Measurement, Score, Scores, View


class Evaluator(Protocol):
    """What every evaluator's module offers."""

    VERSION: int
    AT_EVERY_STEP: bool
    KEYS: tuple[str, ...]


class Scored(Evaluator, Protocol):
    """What a scored evaluator's module offers."""

    def requests(self, view: View) -> list[Example]:
        """The completions to score."""

    def measure(self, view: View, scores: Scores) -> list[Measurement]:
        """Measurements from their scores."""


_MODULES = discovery.modules(__name__)
EVALUATORS: Mapping[str, Evaluator] = {
    name: cast(Evaluator, module) for name, module in _MODULES.items() if hasattr(module, "VERSION")
}
SCORED: Mapping[str, Scored] = {
    name: cast(Scored, module) for name, module in _MODULES.items() if hasattr(module, "requests")
}

__all__ = [
    "EVALUATORS",
    "SCORED",
    "Evaluation",
    "Evaluator",
    "Measurement",
    "Score",
    "Scored",
    "Scores",
    "View",
]
