"""Expert iteration: SFT on the model's own answers that are right.

Sources: STaR (Zelikman et al. 2022); ReST-EM (Singh et al. 2023), which like this keeps at most a
fixed number of right answers a prompt, here one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field

from jaxorg.data.items import Item, generator
from jaxorg.treatments.rl import is_right
from jaxorg.treatments.rounds import Heard, InRounds, Lesson, Row, count, on_policy_row


class ExpertIteration(InRounds):
    """Of the `samples` answers to a prompt, one of the right ones is trained on, chosen at random.
    A prompt without any falls out of the round; if all do, the round has nothing to train on, and
    its steps are taken without a gradient."""

    VERSION: ClassVar[int] = 2

    kind: Literal["expert_iteration"]
    samples: int = Field(default=8, gt=0, le=1024)

    def questions(self, items: Sequence[Item], seed: int, memory: Sequence[str]) -> Sequence[str]:
        """Each prompt `samples` times, one after another."""
        return [item.prompt for item in items for _ in range(self.samples)]

    def lesson(self, heard: Heard) -> Lesson:
        """One right answer to each prompt that has any, as it was said; noted is to how many that
        applies."""
        items, said = heard.items, heard.said
        draws = generator(heard.seed, "expert_iteration").random(len(items))
        rows: list[Row] = []
        solved: list[bool] = []
        for number, (item, draw) in enumerate(zip(items, draws.tolist(), strict=True)):
            answers = said[number * self.samples : (number + 1) * self.samples]
            right = [each for each in answers if is_right(heard.right, item, each)]
            solved.append(bool(right))
            rows += [on_policy_row(right[int(draw * len(right))])] if right else []
        return Lesson(rows, [count("solved", solved)])

    def answers_for(self, prompts: int) -> int:
        """`samples` to each prompt."""
        return prompts * self.samples
