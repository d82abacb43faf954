"""What a training step lowers where that is not SFT's loss: one function an objective.

All work on the log-probabilities of one run's batch, B rows of T tokens, and know of each row what
was computed before it is trained on (`Batch.beside`). SFT's own loss is in `engine/step.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float32

Array = Any  # of jax or numpy, or a shape
Hyper = Mapping[str, Any]  # name -> traced scalar


class Pairs(NamedTuple):
    """What DPO knows of rows that stand in pairs, the chosen one first."""

    reference: Array  # fp32 [B]: log-probability of the completion at the start of the phase


class Samples(NamedTuple):
    """What policy gradients know of sampled answers."""

    advantages: Array  # fp32 [B]
    before: Array  # fp32 [B, T - 1]: log-probabilities of tokens when they were sampled
    reference: Array  # fp32 [B, T - 1]: the same at the start of the phase


class Objective(NamedTuple):
    """How an objective is computed, and what it wants to know."""

    # Of log-probabilities of completion tokens, zero elsewhere [B, T - 1], which tokens these are
    # [B, T - 1], how many, what is known beside, and swept scalars.
    loss: Callable[[jax.Array, jax.Array, jax.Array, Any, Hyper], jax.Array]
    beside: Callable[[int, int], Any]  # what is known beside, as shapes, of B and T


def dpo(
    log_probs: Float32[jax.Array, "B targets"],
    completion_mask: Bool[jax.Array, "B targets"],
    count: Float32[jax.Array, ""],
    pairs: Pairs,
    hyper: Hyper,
) -> Float32[jax.Array, ""]:
    """Direct preference optimisation (Rafailov et al. 2023, equation 7), the mean over pairs.

    Args:
        log_probs: of completion tokens, in nats, zero elsewhere [B, T - 1].
        completion_mask: which tokens these are [B, T - 1].
        count: how many.
        pairs: what is known of the rows, which are chosen and rejected in turn.
        hyper: `beta`, fp32 [].
    """
    gains = jnp.sum(log_probs, axis=1) - pairs.reference
    chosen, rejected = gains[0::2], gains[1::2]
    return -jnp.mean(jax.nn.log_sigmoid(hyper["beta"] * (chosen - rejected)))


def policy_gradient(
    log_probs: Float32[jax.Array, "B targets"],
    completion_mask: Bool[jax.Array, "B targets"],
    count: Float32[jax.Array, ""],
    samples: Samples,
    hyper: Hyper,
) -> Float32[jax.Array, ""]:
    """Clipped policy gradient with a penalty on the divergence from the start of the phase (GRPO,
    Shao et al. 2024, equations 3 and 4).

    The mean is over all tokens of the batch, not over each answer first: with the latter long wrong
    answers are pressed down less than short ones (Liu et al. 2025, "Dr. GRPO").

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


def _pairs(rows: int, length: int) -> Pairs:
    return Pairs(jax.ShapeDtypeStruct((rows,), jnp.float32))


def _samples(rows: int, length: int) -> Samples:
    tokens = jax.ShapeDtypeStruct((rows, length - 1), jnp.float32)
    return Samples(jax.ShapeDtypeStruct((rows,), jnp.float32), tokens, tokens)


OBJECTIVES: Mapping[str, Objective] = {
    "dpo": Objective(dpo, _pairs),
    "policy_gradient": Objective(policy_gradient, _samples),
}
