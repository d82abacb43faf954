"""Measurements, one file each.

A scored evaluator is a module with two functions: `probes(view)` names the completions it wants
teacher-forced, `measure(view, scores)` turns their scores into measurements. Probes that several
evaluators ask for are scored once.
"""

from collections.abc import Sequence
from typing import Protocol, cast

from jaxorg import discovery
from jaxorg.data.tokenized import Example
from jaxorg.evaluators.base import Evaluation, Measurement, Score, Scores, View


class Scored(Protocol):
    """What a scored evaluator's module offers."""

    def probes(self, view: View) -> list[Example]: ...

    def measure(self, view: View, scores: Scores) -> list[Measurement]: ...


EVALUATORS_VERSION = 5  # raise it when a measurement is added or changes

SCORED: Sequence[Scored] = [
    cast(Scored, module)
    for module in discovery.modules(__name__).values()
    if hasattr(module, "probes")
]

__all__ = [
    "EVALUATORS_VERSION",
    "SCORED",
    "Evaluation",
    "Measurement",
    "Score",
    "Scored",
    "Scores",
    "View",
]
