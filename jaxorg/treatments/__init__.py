"""The blue team's treatments, one file a method; reversals are treatments, too."""

from jaxorg.discovery import Pieces, by_kind, kinds, pieces
from jaxorg.treatments.base import Treatment
from jaxorg.treatments.objective import Objective
from jaxorg.treatments.rounds import InRounds

TREATMENTS: tuple[type[Treatment], ...] = kinds(__name__, Treatment)
PIECES: Pieces[type[Treatment]] = pieces(__name__, Treatment, by_kind(TREATMENTS))


def objective_of(kind: str) -> Objective:
    """What the steps of a treatment in rounds lower that has an objective of its own."""
    made = PIECES[kind]
    assert issubclass(made, InRounds)
    assert made.objective is not None
    return made.objective


__all__ = ["PIECES", "TREATMENTS", "Treatment", "objective_of"]
