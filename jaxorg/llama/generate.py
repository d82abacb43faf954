"""Generation with a key-value cache, for ONE model and a batch of prompts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float32, Int, Int32, Key

from jaxorg.llama.model import Cache, Llama


def generate(
    graph: nnx.GraphDef[Llama],
    params: tuple[Any, Any],
    prompts: Int32[Array, "B P"],
    lengths: Int32[Array, " B"],
    keys: Key[Array, " B"],
    temperature: Float32[Array, ""],
    *,
    new_tokens: int,
    end_ids: tuple[int, ...],
) -> Int32[Array, "B {new_tokens}"]:
    """Continue prompts token by token.

    Args:
        graph: what of the model is no array, as the engine splits it.
        params: nested dicts of the parameters that are trained, and of the others.
        prompts: int32 [B, P], padded on the LEFT, so that one cursor serves all rows.
        lengths: int32 [B], each prompt's own tokens.
        keys: one random key a row [B]; unused at temperature 0.
        temperature: fp32 []; 0 is greedy.
        new_tokens: tokens to generate, M.
        end_ids: tokens that end an answer; what follows one repeats it.

    Returns:
        int32 [B, M].
    """
    model = nnx.merge(graph, *params)
    batch, width = prompts.shape
    slots = width + new_tokens
    pad = width - lengths  # [B]
    at = jnp.arange(slots)
    real = at[None] >= pad[:, None]  # [B, S]
    ends = jnp.asarray(end_ids, jnp.int32)

    def choose(logits: Float32[Array, "B V"], count: Int[Array, ""]) -> Int32[Array, " B"]:
        """The next tokens, before which `count` were generated."""
        draws = jax.vmap(jax.random.fold_in, (0, None))(keys, count)
        warm = logits / jnp.maximum(temperature, 1e-6)
        sampled = jax.vmap(jax.random.categorical)(draws, warm)
        greedy = jnp.argmax(logits, axis=-1)
        return jnp.where(temperature > 0, sampled, greedy).astype(jnp.int32)

    def extend(
        carry: tuple[Int32[Array, " B"], Cache], count: Int[Array, ""]
    ) -> tuple[tuple[Int32[Array, " B"], Cache], Int32[Array, " B"]]:
        token, cache = carry
        cursor = width + count
        mask = (real & (at <= cursor)[None])[:, None]  # [B, 1, S]
        positions = (lengths + count)[:, None]
        logits, cache = model(token[:, None], positions, mask, cache, cursor)
        ended = jnp.any(token[:, None] == ends[None], axis=1)
        after = jnp.where(ended, token, choose(logits[:, 0], count + 1))
        return (after, cache), token

    positions = jnp.maximum(at[:width][None] - pad[:, None], 0)
    causal = at[None, :width, None] >= at[None, None]  # [1, P, S]
    # A padded row sees itself: an empty row of the mask would make its softmax undefined.
    mask = causal & (real[:, None] | (at[None, :width, None] == at[None, None]))
    cache = _empty_cache(model, batch, slots)
    logits, cache = model(prompts, positions, mask, cache, 0, last=True)
    first = choose(logits[:, 0], jnp.asarray(0))
    _, tokens = jax.lax.scan(extend, (first, cache), jnp.arange(new_tokens))
    return tokens.T  # [M, B] -> [B, M]


def _empty_cache(model: Llama, batch: int, slots: int) -> Cache:
    config = model.config
    shape = (config.num_hidden_layers, batch, slots, config.num_key_value_heads, config.head_dim)
    return Cache(jnp.zeros(shape, model.dtype), jnp.zeros(shape, model.dtype))
