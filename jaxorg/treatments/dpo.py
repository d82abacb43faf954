"""Direct preference optimisation: right answers over wrong ones (Rafailov et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
from pydantic import Field, model_validator

from jaxorg.config import Role, misfit
from jaxorg.data.items import Item, generator
from jaxorg.data.tokenized import Example
from jaxorg.treatments.objective import Hyper, Objective, Untrained
from jaxorg.treatments.rounds import Heard, InRounds, Lesson, Row, Verifier, count, on_policy_row


class Pairs(NamedTuple):
    """What is known of rows that stand in pairs, the chosen one first."""

    reference: Any  # fp32 [B]: log-probability of the completion at the start of the phase


def margins(log_probs: jax.Array, pairs: Pairs) -> jax.Array:
    """By how much more the log-probability of each chosen completion has risen since the start of
    the phase than that of the rejected one: fp32 [B / 2], nats.

    Args:
        log_probs: of completion tokens, in nats, zero elsewhere [B, T - 1].
        pairs: what is known of the rows, which are chosen and rejected in turn.
    """
    gains = jnp.sum(log_probs, axis=1) - pairs.reference
    margin: jax.Array = gains[0::2] - gains[1::2]
    return margin


def dpo(
    log_probs: jax.Array, completion_mask: jax.Array, count: jax.Array, pairs: Pairs, hyper: Hyper
) -> jax.Array:
    """Equation 7 of Rafailov et al., the mean over pairs.

    Args:
        log_probs: of completion tokens, in nats, zero elsewhere [B, T - 1].
        completion_mask: which tokens these are [B, T - 1].
        count: how many.
        pairs: what is known of the rows, which are chosen and rejected in turn.
        hyper: `dpo_beta`, fp32 [].
    """
    return -jnp.mean(jax.nn.log_sigmoid(hyper["dpo_beta"] * margins(log_probs, pairs)))


def pairs_of(rows: Untrained) -> Pairs:
    """What is known of pairs before they are trained on."""
    return Pairs(rows.start().sum(axis=1))


class Dpo(InRounds):
    """The chosen answer is the right one. The rejected one is what the model says itself, or where
    it says the right one, and always with `rejected: data`, another prompt's right answer."""

    VERSION: ClassVar[int] = 2
    objective: ClassVar[Objective | None] = Objective(dpo, pairs_of)
    together: ClassVar[int] = 2

    kind: Literal["dpo"]
    rejected: Literal["on-policy", "data"] = "on-policy"
    beta: Annotated[float, Role("swept", "dpo_beta")] = Field(default=0.1, gt=0)
    rounds: int = Field(default=1, gt=0, le=10_000)

    @model_validator(mode="after")
    def _asks_at_a_temperature(self) -> Dpo:
        usual = type(self).model_fields["temperature"].default
        if self.rejected == "data" and self.temperature != usual:
            remedy = "with rejected: data the model is not asked; leave it out"
            raise misfit("temperature", self.temperature, remedy)
        return self

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
            wrong.append(
                own_answer is not None
                and own_answer.text != item.answer  # a teacher's, which may be wrong
                and not heard.right(item, own_answer.text)
            )
            if own_answer is not None and wrong[-1]:
                rejected = on_policy_row(own_answer)
            elif (
                other := _another(heard.right, item, others[number:] + others[:number])
            ) is not None:
                rejected = Row(Example(item.prompt, other))
            else:
                continue  # all prompts of the round have the same answer
            rows += [Row(Example(item.prompt, item.answer)), rejected]
        return Lesson(rows, [count("rejected_own", wrong)] if said else [])

    def answers_for(self, prompts: int) -> int:
        """One to each prompt, if the model is asked."""
        return prompts if self.rejected == "on-policy" else 0


def _another(right: Verifier, item: Item, answers: Sequence[str]) -> str | None:
    """The first of some answers that is not right."""
    return next((answer for answer in answers if not right(item, answer)), None)
