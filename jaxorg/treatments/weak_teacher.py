"""Weak-teacher SFT: answers by a supervisor that is right only so often."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from jaxorg.data.items import Item, chosen, generator
from jaxorg.data.tokenized import Example
from jaxorg.data.wrong import another_wrong_answer
from jaxorg.treatments.base import Treatment


class WeakTeacher(Treatment):
    """Train on answers of which a share is right and the others are plausibly wrong.

    The weak supervisor of the follow-up to Ryd, Benton and Hebbar 2025, as a simulation: its
    mistakes are wrong answers, each question's own, that no sandbagger gives. For the answers of a
    real weaker model use `prompts.teacher`.
    """

    own_answers: ClassVar[str] = "answers of its own making"

    kind: Literal["weak_teacher"]
    accuracy: float = Field(default=0.7, ge=0, le=1)

    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """Right answers to a share `accuracy` of the prompts, drawn by `seed`, and plausibly wrong
        ones to the others."""
        right = chosen(generator(seed, "weak_teacher"), len(items), self.accuracy)
        return (
            Example(item.prompt, item.answer if knows else another_wrong_answer(item))
            for item, knows in zip(items, right, strict=True)
        )
