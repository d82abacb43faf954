"""Direct preference optimisation: right answers over wrong ones (Rafailov et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from jaxorg.config import misfit
from jaxorg.data.items import Item, generator
from jaxorg.data.tasks import is_correct
from jaxorg.data.tokenized import Example
from jaxorg.treatments.rounds import Heard, InRounds, Lesson, Row, comes_right, count, own


class Dpo(InRounds):
    """The chosen answer is the right one. The rejected one is what the model says itself, or where
    it says the right one, and always with `rejected: data`, another prompt's right answer."""

    objective: ClassVar[str] = "dpo"
    together: ClassVar[int] = 2

    kind: Literal["dpo"]
    rejected: Literal["on-policy", "data"] = "on-policy"
    beta: float = Field(default=0.1, gt=0)
    rounds: int = Field(default=1, gt=0, le=10_000)

    @model_validator(mode="after")
    def _asks_at_a_temperature(self) -> Dpo:
        usual = type(self).model_fields["temperature"].default
        if self.rejected == "data" and self.temperature != usual:
            remedy = "with rejected: data the model is not asked; leave it out"
            raise misfit("temperature", self.temperature, remedy)
        return self

    def swept(self) -> dict[str, float]:
        """`beta`, how strongly the model is held to the reference."""
        return {"beta": self.beta}

    def questions(self, items: Sequence[Item], seed: int, memory: Sequence[str]) -> Sequence[str]:
        """Each prompt once, if the model's own answers are to be rejected."""
        return [item.prompt for item in items] if self.rejected == "on-policy" else []

    def lesson(self, heard: Heard) -> Lesson:
        """Rows in pairs, the chosen before the rejected; a prompt to which no wrong answer is at
        hand is left out."""
        items, said = heard.items, heard.said
        rng = generator(heard.seed, "dpo")
        others = [items[at].answer for at in rng.permutation(len(items))]
        rows: list[Row] = []
        wrong: list[bool] = []
        for number, item in enumerate(items):
            own_answer = said[number] if said else None
            wrong.append(own_answer is not None and not comes_right(item, own_answer.text))
            if own_answer is not None and wrong[-1]:
                rejected = own(own_answer)
            elif (other := _another(item, others[number:] + others[:number])) is not None:
                rejected = Row(Example(item.prompt, other))
            else:
                continue  # all prompts of the round have the same answer
            rows += [Row(Example(item.prompt, item.answer)), rejected]
        return Lesson(rows, [count("rejected_own", wrong)] if said else [])

    def answers_for(self, prompts: int) -> int:
        """One to each prompt, if the model is asked."""
        return prompts if self.rejected == "on-policy" else 0


def _another(item: Item, answers: Sequence[str]) -> str | None:
    """The first of some answers that is not right."""
    return next((answer for answer in answers if not is_correct(item, answer)), None)
