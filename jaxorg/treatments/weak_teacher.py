"""Weak-teacher SFT: answers by a weaker model, right or wrong."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from jaxorg.treatments.plain import Plain


class WeakTeacher(Plain):
    """Train on the answers of a weaker model, right or wrong, as it gives them greedily.

    Weak supervision as in the follow-up to Ryd, Benton and Hebbar 2025 and in Burns et al. 2023
    ("Weak-to-Strong Generalization"): nobody knows which of its answers are right.
    """

    VERSION: ClassVar[int] = 2
    own_answers: ClassVar[str] = "what its model answers"

    kind: Literal["weak_teacher"]  # type: ignore[assignment]
    model: str = Field(min_length=1)  # as prompts.teacher

    @property
    def supervisor(self) -> str:
        """Its model."""
        return self.model
