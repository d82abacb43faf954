"""The red team's organisms, one file a kind."""

from jaxorg.discovery import Pieces, by_kind, kinds, pieces
from jaxorg.organisms.base import Organism
from jaxorg.organisms.behaviour import Behaviour

ORGANISMS: tuple[type[Organism], ...] = kinds(__name__, Organism)
PIECES: Pieces[type[Organism]] = pieces(__name__, Organism, by_kind(ORGANISMS))

__all__ = ["ORGANISMS", "PIECES", "Behaviour", "Organism"]
