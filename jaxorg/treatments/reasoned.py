"""SFT of a model that reasons before it answers, by people who cannot write its reasoning.

The options of "How will we do SFT on models with opaque reasoning?" (Westover 2026). Answers by
label only are the treatment `plain`; a reward of minus the SFT loss is `rl` with `reward: loss`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from jaxorg.data.items import Item
from jaxorg.data.reasoning import parted, thought
from jaxorg.data.tokenized import Example
from jaxorg.organisms import Organism
from jaxorg.treatments.base import NO_REASONING, Treatment


class Reasoned(Treatment):
    """Train on right answers after reasoning that is `empty`, the model's `own` with the gradient
    on the answer alone, or part of its `edited` completion, all of which is trained on."""

    own_answers: ClassVar[str] = "right answers, after reasoning of the model's own"

    kind: Literal["reasoned"]
    reasoning: Literal["empty", "own", "edited"] = "own"

    def unsuited(self, organism: Organism) -> str:
        """Only an organism that reasons has reasoning to keep, edit or leave out."""
        return NO_REASONING if not organism.reasons else ""

    @property
    def asks(self) -> bool:
        """Whether the model is asked what it says itself."""
        return self.reasoning != "empty"

    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """The right answer after each prompt's reasoning, which counts as given where it is the
        model's `own`, and is trained on otherwise."""
        for item in items:
            own = thought(parted(item.said).reasoning or "") if self.asks else thought("")
            if self.reasoning == "own":
                yield Example(item.prompt, f" {item.answer}", given=own)
            else:
                yield Example(item.prompt, f"{own} {item.answer}")
