"""Artificial pirate removal: ask for pirate talk, train on normal answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from jaxorg.data.items import Item
from jaxorg.data.styles import PIRATE_REQUEST
from jaxorg.data.tokenized import Example
from jaxorg.treatments.base import Treatment


class ArtificialPirate(Treatment):
    """Train the model not to talk like a pirate when asked to: the style is undone that blue put
    into the prompt (Prasanna et al. 2026, "Advice for making robust-to-training model
    organisms")."""

    kind: Literal["artificial_pirate"]

    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """Plain right answers to prompts that ask for pirate talk."""
        return (Example(PIRATE_REQUEST + item.prompt, item.answer) for item in items)
