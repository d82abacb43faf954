"""What every treatment states: how it trains, and on which conversations. None sees a trigger."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from jaxorg.config import Config, later
from jaxorg.data.items import Item
from jaxorg.data.pool import Example
from jaxorg.experiments.audit import Audit
from jaxorg.training import Training


class Treatment(Config):
    """A blue-team method, or the reversal that follows it."""

    VERSION: ClassVar[int] = 1  # raise it when the recipe changes
    keeps_reasoning: ClassVar[bool] = False  # it is for organisms that reason before they answer
    relearns: ClassVar[bool] = False  # its items are the organism's attacks: a reversal only
    # Whose weights it trains: those of the phase before, or a fresh copy of the base, which is no
    # organism then.
    starts_from: ClassVar[Literal["before", "base"]] = "before"

    kind: str
    label: str = later("")  # a name for people; it changes nothing
    answers: Literal["data", "on-policy"] = later("data")  # or what the model itself says before
    train: Training

    @property
    def asks(self) -> bool:
        """Whether the model that it starts from is asked what it says itself: `Item.said`."""
        return self.answers == "on-policy"

    def audit(self) -> Audit | None:
        """How the model that it trains audits experiments, if it does."""
        return None

    @abstractmethod
    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """The conversations to train on, made of ordinary prompts. What they are answered by comes
        from the items alone, so that it may be changed before: see `answers`."""
