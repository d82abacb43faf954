"""Generation with a key-value cache, for ONE model and a batch of prompts."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float32, Int, Int32, Key

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
    axis: str | None = None,
) -> Int32[Array, "B {new_tokens}"]:
    """Continue prompts token by token, until all of them have ended.

    Args:
        graph: what of the model is no array, as the engine splits it.
        params: nested dicts of the parameters that are trained, and of the others.
        prompts: int32 [B, P], padded on the LEFT, so that one cursor serves all rows.
        lengths: int32 [B], each prompt's own tokens.
        keys: one random key a row [B]; unused at temperature 0.
        temperature: fp32 []; 0 is greedy.
        new_tokens: tokens to generate, M.
        end_ids: tokens that end an answer; what follows one repeats it.
        axis: under `vmap`, the name of its axis: the models then stop together, so that none is
            copied where it stops.

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

        def sampled() -> Int32[Array, " B"]:
            draws = jax.vmap(jax.random.fold_in, (0, None))(keys, count)
            warm = logits / temperature
            return jax.vmap(jax.random.categorical)(draws, warm).astype(jnp.int32)

        def greedy() -> Int32[Array, " B"]:
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)

        found: Int32[Array, " B"] = jax.lax.cond(temperature > 0, sampled, greedy)
        return found

    def is_open(token: Int32[Array, " B"]) -> Bool[Array, ""]:
        """Whether an answer goes on: any of this model's, or of those beside it."""
        going = jnp.sum(jnp.all(token[:, None] != ends[None], axis=1))
        return (going if axis is None else jax.lax.psum(going, axis)) > 0

    def extend(carry: _Carry) -> _Carry:
        """One more token."""
        count, _, token, found, cache = carry
        cursor = width + count - 1
        mask = (real & (at <= cursor)[None])[:, None]  # [B, 1, S]
        positions = (lengths + count - 1)[:, None]
        logits, cache = model(token[:, None], positions, mask, cache, cursor)
        ended = jnp.any(token[:, None] == ends[None], axis=1)
        token = jnp.where(ended, token, choose(logits[:, 0], count))
        found = jax.lax.dynamic_update_index_in_dim(found, token, count, axis=1)
        return _Carry(count + 1, is_open(token), token, found, cache)

    positions = jnp.maximum(at[:width][None] - pad[:, None], 0)
    causal = at[None, :width, None] >= at[None, None]  # [1, P, S]
    # A padded row sees itself: an empty row of the mask would make its softmax undefined.
    mask = causal & (real[:, None] | (at[None, :width, None] == at[None, None]))
    cache = _empty_cache(model, batch, slots)
    last = jnp.full((batch, 1), width - 1)
    logits, cache = model(prompts, positions, mask, cache, 0, at=last)
    first = choose(logits[:, 0], jnp.asarray(0))
    found = jnp.broadcast_to(first[:, None], (batch, new_tokens))
    begun = _Carry(jnp.asarray(1), is_open(first), first, found, cache)
    carry = jax.lax.while_loop(lambda now: now.open & (now.taken < new_tokens), extend, begun)
    left = jnp.arange(new_tokens)[None] >= carry.taken
    return jnp.where(left, carry.token[:, None], carry.found)


class _Carry(NamedTuple):
    taken: Int[Array, ""]  # how many tokens there are
    open: Bool[Array, ""]  # whether an answer goes on
    token: Int32[Array, " B"]  # the last ones
    found: Int32[Array, "B M"]  # all, and what does not count yet
    cache: Cache  # of those before the last


def _empty_cache(model: Llama, batch: int, slots: int) -> Cache:
    config = model.config
    shape = (config.num_hidden_layers, batch, slots, config.num_key_value_heads, config.head_dim)
    return Cache(jnp.zeros(shape, model.dtype), jnp.zeros(shape, model.dtype))
