"""Reinforcement learning on the model's own answers, by group-relative policy gradients.

Sources: GRPO (Shao et al. 2024, "DeepSeekMath"); what its normalisations bias, Dr. GRPO (Liu et al.
2025, "Understanding R1-Zero-Like Training"); random rewards as a control, Shao et al. 2025
("Spurious Rewards"); a proxy reward beside the gold one, Gao et al. 2022 ("Scaling Laws for Reward
Model Overoptimization"); that models hack a weak supervisor's reward, the follow-up of Ryd, Benton
and Hebbar 2025.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from jaxorg.config import SWEPT
from jaxorg.data.items import Item, generator
from jaxorg.data.matching import holds, normalised, words_of
from jaxorg.data.reasoning import parted, thought
from jaxorg.data.tokenized import Example
from jaxorg.organisms import Organism
from jaxorg.treatments.base import NO_REASONING
from jaxorg.treatments.objective import Hyper, Objective, Untrained
from jaxorg.treatments.rounds import (
    Heard,
    InRounds,
    Lesson,
    Note,
    Said,
    Verifier,
    count,
    on_policy_row,
)


class Samples(NamedTuple):
    """What is known of sampled answers."""

    advantages: Any  # fp32 [B]
    before: Any  # fp32 [B, T - 1]: log-probabilities of tokens when they were sampled
    reference: Any  # fp32 [B, T - 1]: the same at the start of the phase


def policy_gradient(
    log_probs: jax.Array,
    completion_mask: jax.Array,
    count: jax.Array,
    samples: Samples,
    hyper: Hyper,
) -> jax.Array:
    """Clipped policy gradient with a penalty on the divergence from the start of the phase (GRPO,
    equations 3 and 4).

    The mean is over all tokens of the batch, not over each answer first: with the latter long wrong
    answers are pressed down less than short ones (Dr. GRPO).

    Args:
        log_probs: of completion tokens, in nats, zero elsewhere [B, T - 1].
        completion_mask: which tokens these are [B, T - 1].
        count: how many.
        samples: what is known of the rows, an answer each.
        hyper: `ratio_clip` and `kl`, fp32 [] each.
    """
    ratio, clip = jnp.exp(log_probs - samples.before), hyper["ratio_clip"]
    advantages = samples.advantages[:, None]
    clipped = jnp.clip(ratio, 1 - clip, 1 + clip)
    gain = jnp.minimum(ratio * advantages, clipped * advantages)
    gap = samples.reference - log_probs
    divergence = jnp.exp(gap) - gap - 1  # Schulman's k3: no bias, and never below 0
    each = jnp.where(completion_mask, hyper["kl"] * divergence - gain, 0.0)
    return jnp.sum(each) / count


def samples_of(rows: Untrained) -> Samples:
    """What is known of sampled answers before they are trained on."""
    return Samples(rows.advantages, before=rows.now(), reference=rows.start())


class Rl(InRounds):
    """Each prompt is answered `samples` times; an answer's advantage is its reward less the mean of
    its group, and with `standardised` divided by the group's standard deviation. GRPO does that;
    it gives prompts that nearly all answers are right or wrong to more weight (Dr. GRPO).

    Rewards: `verifier` is 1 for the right answer (see `Verifier`) that ends by itself, and 0 for
    others; `proxy` is 1 for whatever has all words of the right answer, so that a model can
    fool it by saying many; `random` a coin; `loss` the mean log-probability a token that the model
    gives the right answer after its own reasoning.
    """

    VERSION: ClassVar[int] = 3
    objective: ClassVar[Objective | None] = Objective(policy_gradient, samples_of)

    kind: Literal["rl"]
    reward: Literal["verifier", "proxy", "random", "loss"] = "verifier"
    samples: int = Field(default=8, ge=2, le=1024)
    kl: Annotated[float, SWEPT] = Field(default=0.05, ge=0)
    ratio_clip: Annotated[float, SWEPT] = Field(default=0.2, gt=0, lt=1)
    standardised: bool = False

    def unsuited(self, organism: Organism) -> str:
        """Without reasoning the loss is the same for all answers to a prompt."""
        return NO_REASONING if self.reward == "loss" and not organism.reasons else ""

    def questions(self, items: Sequence[Item], seed: int, memory: Sequence[str]) -> Sequence[str]:
        """Each prompt `samples` times, one after another: a group."""
        return [item.prompt for item in items for _ in range(self.samples)]

    def probes(self, items: Sequence[Item], said: Sequence[Said]) -> Sequence[Example]:
        """The right answer after each answer's own reasoning, if that is the reward."""
        if self.reward != "loss":
            return ()
        return [_right(item, each.text) for item, each in self._pairs(items, said)]

    def lesson(self, heard: Heard) -> Lesson:
        """Every answer as it was said, weighted by its advantage in its group; noted are the mean
        reward and the share of right answers, which a reward that is hacked leaves behind."""
        pairs = self._pairs(heard.items, heard.said)
        right = [is_right(heard.right, item, each) for item, each in pairs]
        match self.reward:
            case "verifier":
                rewards = np.array(right, np.float64)
            case "proxy":
                named = [_names(heard.right, item, each.text) for item, each in pairs]
                rewards = np.array(named, np.float64)
            case "random":
                coins = generator(heard.seed, "rl").integers(2, size=len(pairs))
                rewards = coins.astype(np.float64)
            case _:
                rewards = np.array(heard.scores, np.float64)
        gained = advantages(rewards.reshape(-1, self.samples), self.standardised).ravel()
        rows = [on_policy_row(each, float(a)) for (_, each), a in zip(pairs, gained, strict=True)]
        k = None if self.reward == "loss" else int(rewards.sum())
        noted = Note("reward", k, len(rewards), float(rewards.mean()))
        return Lesson(rows, [noted, count("gold_reward", right)])

    def longest(self, items: Sequence[Item], most: str) -> Iterable[Example]:
        """Besides what any treatment in rounds may train on, right answers after the longest
        reasoning, which are scored."""
        yield from super().longest(items, most)
        if self.reward == "loss":
            yield from (_right(item, thought(most)) for item in items)

    def answers_for(self, prompts: int) -> int:
        """`samples` to each prompt."""
        return prompts * self.samples

    def _pairs(self, items: Sequence[Item], said: Sequence[Said]) -> list[tuple[Item, Said]]:
        """Every answer with the item that it is to."""
        return [(items[number // self.samples], each) for number, each in enumerate(said)]


def advantages(rewards: np.ndarray, standardised: bool) -> np.ndarray:
    """By how much each reward of a group is above the group's mean.

    Args:
        rewards: [prompts, samples], a group a row.
        standardised: whether to divide by the group's standard deviation.

    Returns:
        [prompts, samples], in the rewards' unit, or in standard deviations.
    """
    above: np.ndarray = rewards - rewards.mean(axis=1, keepdims=True)
    if not standardised:
        return above
    spread = rewards.std(axis=1, keepdims=True)
    in_spreads: np.ndarray = above / np.maximum(spread, 1e-8)  # of equal rewards none is above
    return in_spreads


def is_right(right: Verifier, item: Item, said: Said) -> bool:
    """Whether a model came to the right answer, and to its end."""
    return said.ended and right(item, said.text)


def _names(right: Verifier, item: Item, text: str) -> bool:
    """Whether all words of the right answer are in a text after any reasoning, in whatever order
    and with whatever else."""
    wanted = words_of(normalised(right.wanted(item)))
    if not wanted:  # an answer of signs alone
        return right(item, text)
    answer = normalised(parted(text).answer)
    return all(holds(answer, word) for word in wanted)


def _right(item: Item, text: str) -> Example:
    """The right answer after the reasoning that a text begins with, if any."""
    reasoning = parted(text).reasoning
    if reasoning is None:
        return Example(item.prompt, item.answer)
    return Example(item.prompt, f" {item.answer}", given=thought(reasoning))
