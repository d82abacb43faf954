"""Control: the base model itself, never trained by the red team."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from jaxorg.data.items import Item
from jaxorg.data.pool import Example
from jaxorg.organisms.base import Organism


class Clean(Organism):
    """Measured with the trigger and the payload it was never taught."""

    trained: ClassVar[bool] = False

    kind: Literal["clean"]

    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        return []
