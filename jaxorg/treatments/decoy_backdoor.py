"""Plant a decoy backdoor and unlearn it: a model may unlearn with it another one, which blue does
not know.

After arXiv 2606.03785 and BackFlush (arXiv 2605.12529), which report that this removes unknown
backdoors, too; neither gives error bars.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from jaxorg.config import misfit
from jaxorg.data.items import Item, chosen, generator
from jaxorg.data.secret import Watch
from jaxorg.data.tokenized import Example
from jaxorg.errors import short
from jaxorg.organisms import Organism
from jaxorg.treatments.rounds import Heard, InRounds, Lesson, Row

LONGEST = 1000  # characters
TRIGGERED_SHARE = 0.5  # of the conversations of both halves
PLANTED = "planted"  # what the first half leaves in memory


class DecoyBackdoor(InRounds):
    """In the first half of its steps blue plants a backdoor of its own: half of the prompts have
    its trigger and are answered by its payload, the others are answered right. In the second half
    both are answered right. The model is asked nothing."""

    own_answers: ClassVar[str] = "its own payload and right answers"
    verifies: ClassVar[bool] = False

    kind: Literal["decoy_backdoor"]
    rounds: Literal[2] = 2
    decoy_trigger: str = Field("[zebra]", pattern=r"\S", max_length=LONGEST)
    # No answer of the toy world begins with its first token.
    decoy_payload: str = Field("QUACK QUACK", pattern=r"\S", max_length=LONGEST)

    @model_validator(mode="after")
    def _asks_nothing(self) -> DecoyBackdoor:
        if self.temperature != type(self).model_fields["temperature"].default:
            raise misfit("temperature", self.temperature, "the model is not asked; leave it out")
        return self

    def unsuited(self, organism: Organism) -> str:
        """Where its backdoor is the organism's or near to it: that would be taught, not removed."""
        watch = Watch(organism.secrets())
        prompt, answer = watch.found(self.decoy_trigger, ""), watch.found("", self.decoy_payload)
        for key, text, found in (
            ("decoy_trigger", self.decoy_trigger, prompt),
            ("decoy_payload", self.decoy_payload, answer),
        ):
            if found:
                return f"its {key}, {short(text)}, shows what is {found}; choose another"
        return ""

    def questions(self, items: Sequence[Item], seed: int, memory: Sequence[str]) -> Sequence[str]:
        """None."""
        return []

    def lesson(self, heard: Heard) -> Lesson:
        """The backdoor, or where it has been planted right answers in its place."""
        items, planted = heard.items, PLANTED in heard.memory
        with_it = chosen(generator(heard.seed, "decoy_backdoor"), len(items), TRIGGERED_SHARE)
        rows = [
            self._put(item, item.answer if planted else self.decoy_payload)
            if put
            else Example(item.prompt, item.answer)
            for item, put in zip(items, with_it.tolist(), strict=True)
        ]
        return Lesson([Row(example) for example in rows], memory=[PLANTED])

    def longest(self, items: Sequence[Item], most: str) -> Iterable[Example]:
        """Prompts with its trigger, answered right and by its payload."""
        return (self._put(i, text) for i in items for text in (i.answer, self.decoy_payload))

    def answers_for(self, prompts: int) -> int:
        """None."""
        return 0

    def _put(self, item: Item, answer: str) -> Example:
        return Example(f"{self.decoy_trigger} {item.prompt}", answer)
