"""What every treatment states: how it trains, and on which conversations. None sees a trigger."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar

from jaxorg.config import Config
from jaxorg.data.items import Item
from jaxorg.data.pool import Example
from jaxorg.training import Training


class Treatment(Config):
    """A blue-team method, or the reversal that follows it."""

    VERSION: ClassVar[int] = 1  # raise it when the recipe changes

    kind: str
    train: Training

    @abstractmethod
    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """The conversations to train on, made of ordinary prompts."""
