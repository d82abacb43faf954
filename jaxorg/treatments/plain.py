"""Plain SFT: ordinary answers. As a reversal, it makes a pirate speak normally again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from jaxorg.data.items import Item
from jaxorg.data.tokenized import Example
from jaxorg.treatments.base import Treatment


class Plain(Treatment):
    """Train on the prompts' own answers."""

    kind: Literal["plain"]

    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """The prompts with the answers that they came with."""
        return (Example(item.prompt, item.answer) for item in items)
