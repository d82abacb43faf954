"""Generation with a key-value cache, for ONE model and rows that go on from prompts."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float32, Int, Int32, Key

from jaxorg.llama.model import Cache, Llama
from jaxorg.llama.prefix import sees, with_room


class Asked(NamedTuple):
    """Rows that go on from prompts, on the host or on a device."""

    of: Any  # int32 [R]: which of the prompts
    lengths: Any  # int32 [R]: tokens of the prompt
    last: Any  # int32 [R]: its last token


def generate(
    graph: nnx.GraphDef[Llama],
    params: tuple[Any, Any],
    prefix: Cache,
    rows: Asked,
    keys: Key[Array, " R"],
    temperature: Float32[Array, " R"],
    *,
    new_tokens: int,
    end_ids: tuple[int, ...],
    axis: str | None = None,
) -> Int32[Array, "R {new_tokens}"]:
    """Continue prompts token by token, until all of them have ended.

    Args:
        graph: what of the model is no array, as the engine splits it.
        params: nested dicts of the parameters that are trained, and of the others.
        prefix: the prompts, as `prefill` read them.
        rows: which of them each row goes on from.
        keys: one random key a row [R]; unused at temperature 0.
        temperature: fp32 [R]; 0 is greedy.
        new_tokens: tokens to generate, M.
        end_ids: tokens that end an answer; what follows one repeats it.
        axis: under `vmap`, the name of its axis: the models then stop together, so that none is
            copied where it stops.

    Returns:
        int32 [R, M].
    """
    model = nnx.merge(graph, *params)
    width = prefix.keys.shape[2]
    ends = jnp.asarray(end_ids, jnp.int32)

    def choose(logits: Float32[Array, "R V"], taken: Int[Array, ""]) -> Int32[Array, " R"]:
        """The next tokens, before which `taken` were generated."""
        best = jnp.argmax(logits, axis=-1).astype(jnp.int32)

        def sampled() -> Int32[Array, " R"]:
            draws = jax.vmap(jax.random.fold_in, (0, None))(keys, taken)
            warm = logits / jnp.where(temperature > 0, temperature, 1.0)[:, None]
            drawn = jax.vmap(jax.random.categorical)(draws, warm).astype(jnp.int32)
            return jnp.where(temperature > 0, drawn, best)

        found: Int32[Array, " R"] = jax.lax.cond(jnp.any(temperature > 0), sampled, lambda: best)
        return found

    def ended(token: Int32[Array, " R"]) -> Bool[Array, " R"]:
        return jnp.any(token[:, None] == ends[None], axis=1)

    def extend(now: _Carry) -> _Carry:
        """One more token."""
        mask = sees(rows.lengths, width, width + new_tokens, now.taken[None])  # [R, 1, S]
        positions = (rows.lengths - 1 + now.taken)[:, None]
        cursor = width + now.taken
        logits, cache = model(now.token[:, None], positions, mask, now.cache, cursor)
        stays = ended(now.token) & (now.taken > 0)  # a prompt's last token ends nothing
        token = jnp.where(stays, now.token, choose(logits[:, 0], now.taken))
        found = jax.lax.dynamic_update_index_in_dim(now.found, token, now.taken, axis=1)
        going = jnp.sum(~ended(token))  # any of this model's, or of those beside it
        going = going if axis is None else jax.lax.psum(going, axis)
        return _Carry(now.taken + 1, going > 0, token, found, cache)

    found = jnp.zeros((len(rows.last), new_tokens), jnp.int32)
    cache = with_room(prefix, rows.of, new_tokens)
    begun = _Carry(jnp.asarray(0), jnp.asarray(True), rows.last, found, cache)
    carry = jax.lax.while_loop(lambda now: now.open & (now.taken < new_tokens), extend, begun)
    left = jnp.arange(new_tokens)[None] >= carry.taken
    return jnp.where(left, carry.token[:, None], carry.found)


class _Carry(NamedTuple):
    taken: Int[Array, ""]  # how many tokens were generated
    open: Bool[Array, ""]  # whether an answer goes on
    token: Int32[Array, " R"]  # the last ones
    found: Int32[Array, "R M"]  # all, and what does not count yet
    cache: Cache  # of those before the last
