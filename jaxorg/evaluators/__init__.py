"""Measurements, one file each.

An evaluator is a class with a `VERSION`. Its module's name is its entry in a sweep file's
`evaluate`, its fields are the keys of that. It is of one of the kinds in `base`, by what it needs
of a model: how given completions are received, with noise or without, what the model answers, or
what is seen inside it.
"""

from collections.abc import Mapping

from jaxorg import discovery
from jaxorg.evaluators.base import (
    Evaluator,
    Measurement,
    Response,
    Score,
    Scores,
    Subject,
    View,
)

EVALUATORS: Mapping[str, type[Evaluator]] = discovery.named(__name__, Evaluator)

__all__ = [
    "EVALUATORS",
    "Evaluator",
    "Measurement",
    "Response",
    "Score",
    "Scores",
    "Subject",
    "View",
]
