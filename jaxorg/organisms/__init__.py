"""The red team's organisms, one file a kind."""

from jaxorg.discovery import kinds
from jaxorg.organisms.base import Organism
from jaxorg.organisms.behaviour import Behaviour

ORGANISMS: tuple[type[Organism], ...] = kinds(__name__, Organism)

__all__ = ["ORGANISMS", "Behaviour", "Organism"]
