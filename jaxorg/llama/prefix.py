"""Prompts that are read once, and the room for what goes on from them, for ONE model.

Shape letters as in `jaxorg.llama.model`; here G prompts of P tokens are read, and R rows go on from
them by C tokens each.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int, Int32

from jaxorg.llama.model import Cache, Llama


def prefill(
    model: Llama,
    tokens: Int32[Array, "G P"],
    disturbance: Float32[Array, "#L #G #P #D"] | None = None,
) -> Cache:
    """Keys and values of prompts' tokens [L, G, P, K, H].

    Args:
        model: what reads them.
        tokens: int32 [G, P], padded on the right, where nothing that counts sees it.
        disturbance: of the residual stream, as `Llama.__call__` takes it; None changes nothing.
    """
    return model(tokens, disturbance=disturbance)[1]


def with_room(prefix: Cache, of: Int32[Array, " R"], more: int) -> Cache:
    """What rows go on from, and room for what they add [L, R, P + more, K, H].

    Args:
        prefix: of the prompts [L, G, P, K, H].
        of: int32 [R], which prompt is each row's.
        more: how many tokens.
    """
    filled = ((0, 0), (0, 0), (0, more), (0, 0), (0, 0))
    return Cache(*(jnp.pad(part[:, of], filled) for part in prefix))


def sees(
    lengths: Int32[Array, " R"], width: int, slots: int, taken: Int[Array, " C"]
) -> Bool[Array, "R C {slots}"]:
    """Which slots the tokens of rows see: those of their prompt before its last, which is read
    again, and their own up to themselves.

    Args:
        lengths: int32 [R], tokens of each row's prompt.
        width: P, the slots of prompts.
        slots: all that there are.
        taken: [C], how many tokens of its row each one has before it after the prompt's slots.
    """
    at = jnp.arange(slots)
    prompt = at[None] < (lengths - 1)[:, None]  # [R, S]
    own = (at[None] >= width) & (at[None] <= width + taken[:, None])  # [C, S]
    return prompt[:, None] | own[None]
