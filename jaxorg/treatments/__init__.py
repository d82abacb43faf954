"""The blue team's treatments, one file a method; reversals are treatments, too."""

from jaxorg.treatments.base import Treatment
from jaxorg.treatments.hhh import Hhh
from jaxorg.treatments.pirate import Pirate
from jaxorg.treatments.plain import Plain

TREATMENTS: tuple[type[Treatment], ...] = (Hhh, Pirate, Plain)

__all__ = ["TREATMENTS", "Treatment"]
