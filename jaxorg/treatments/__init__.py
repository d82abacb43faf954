"""The blue team's treatments, one file a method; reversals are treatments, too."""

from jaxorg.discovery import kinds
from jaxorg.treatments.base import Treatment

TREATMENTS: tuple[type[Treatment], ...] = kinds(__name__, Treatment)

__all__ = ["TREATMENTS", "Treatment"]
