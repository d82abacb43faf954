"""What makes an answer right: scorers judge stored text and ask no model but a judge's."""

from jaxorg.discovery import kinds
from jaxorg.scorers.base import Said, Scorer

SCORERS: tuple[type[Scorer], ...] = kinds(__name__, Scorer)

__all__ = ["SCORERS", "Said", "Scorer"]
