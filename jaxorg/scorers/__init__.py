"""What makes an answer right: scorers judge stored text and ask no model but a judge's."""

from jaxorg.discovery import Pieces, by_kind, kinds, pieces
from jaxorg.scorers.base import Said, Scorer

SCORERS: tuple[type[Scorer], ...] = kinds(__name__, Scorer)
PIECES: Pieces[type[Scorer]] = pieces(__name__, Scorer, by_kind(SCORERS))

__all__ = ["PIECES", "SCORERS", "Said", "Scorer"]
