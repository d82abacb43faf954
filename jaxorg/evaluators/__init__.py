"""Measurements, one file each.

An evaluator is a class with a `VERSION`. Its module's name is its entry in a sweep file's
`evaluate`, its fields are the keys of that. It is of one of the kinds in `base`, by what it needs
of a model: how given completions are received, with noise or without, what the model answers, or
what is seen inside it.
"""

from jaxorg.discovery import Pieces, named, pieces
from jaxorg.evaluators.base import (
    Evaluator,
    Measurement,
    Response,
    Score,
    Scores,
    Subject,
    View,
)

EVALUATORS: Pieces[type[Evaluator]] = pieces(__name__, Evaluator, named(__name__, Evaluator))

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
