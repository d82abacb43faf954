"""The blue team's treatments, one file a method; reversals are treatments, too."""

from jaxorg.discovery import Pieces, kinds, pieces
from jaxorg.treatments.base import Treatment

TREATMENTS: tuple[type[Treatment], ...] = kinds(__name__, Treatment)
PIECES: Pieces[type[Treatment]] = pieces(__name__, Treatment, TREATMENTS)

__all__ = ["PIECES", "TREATMENTS", "Treatment"]
