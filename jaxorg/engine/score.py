"""One scoring pass of ONE run: how a model receives given completions. Nothing here knows of other
runs.

Shape letters as in `jaxorg.llama.model` and `jaxorg.llama.prefix`; here B is the rows of a batch,
and of its T tokens all but the first are targets: T - 1.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Float32, Int, Int32, Key, UInt32

from jaxorg.engine.batch import AnyBatch, Completions, PackedBatch
from jaxorg.engine.params import Params
from jaxorg.llama import damage, prefix
from jaxorg.llama.model import Cache, Llama

NOISE = 2**17  # names the random numbers that disturb activations and weights
PROMPT, COMPLETION = 0, 1  # whose activations they are
MOST_LOGITS = 2**24  # of one run in a step that are computed at once: 64 MiB in fp32
BLOCKS = 16  # in which more of them are computed


class Scores(NamedTuple):
    """How a model receives given completions."""

    exact: jax.Array  # bool [B]: greedy decoding would give just this completion
    log_prob: jax.Array  # fp32 [B]: of the completion, in nats


def prefill(
    graph: nnx.GraphDef[Llama],
    params: Params,
    prompts: Int32[jax.Array, "G P"],
    disturbance: Float32[jax.Array, "#L #G #P #D"] | None = None,
) -> Cache:
    """Read prompts, each once for all that goes on from it; see `llama.prefix.prefill`.

    Args:
        graph: the model's structure, as `split` gives it.
        params: the model's; adapters come scaled.
        prompts: int32 [G, P], padded on the right.
        disturbance: of the residual stream, as `Llama.__call__` takes it; None changes nothing.
    """
    return prefix.prefill(nnx.merge(graph, *params), prompts, disturbance)


def score(
    graph: nnx.GraphDef[Llama],
    params: Params,
    cache: Cache,
    rows: Completions,
    disturbance: Float32[jax.Array, "#L #R #C #D"] | None = None,
) -> Scores:
    """Score completions of prompts by teacher forcing, in one pass over the completions alone.

    A completion counts as exact when each of its tokens is the most likely one given those
    before it, which is when greedy decoding produces it.

    Args:
        graph: the model's structure, as `split` gives it.
        params: the model's; adapters come scaled.
        cache: of G prompts, as `prefill` read them.
        rows: R completions, of at most C tokens each.
        disturbance: of the residual stream, as `Llama.__call__` takes it; None changes nothing.
    """
    model = nnx.merge(graph, *params)
    given, targets = rows.tokens[:, :-1], rows.tokens[:, 1:]  # [R, C]
    width, count = cache.keys.shape[2], given.shape[1]
    taken = jnp.arange(count)
    positions = (rows.lengths - 1)[:, None] + taken[None]
    mask = prefix.sees(rows.lengths, width, width + count, taken)
    own = prefix.with_room(cache, rows.of, count)
    logits, _ = model(given, positions, mask, own, width, disturbance=disturbance)  # [R, C, V]
    log_probs, right = _received(logits, targets, taken[None] < rows.count[:, None])
    return Scores(right, jnp.sum(log_probs, axis=1))


def prefill_in_noise(
    graph: nnx.GraphDef[Llama],
    params: Params,
    prompts: Int32[jax.Array, "G P"],
    draws: UInt32[jax.Array, " G"],
    scale: Float32[jax.Array, ""],
) -> Cache:
    """As `prefill`, with Gaussian noise on the residual stream after each block.

    Args:
        graph: the model's structure, as `split` gives it.
        params: the model's; adapters come scaled.
        prompts: int32 [G, P], padded on the right.
        draws: with P, all that a prompt's noise depends on.
        scale: the noise's standard deviation, in units of the stream's root mean square.
    """
    model = nnx.merge(graph, *params)
    return prefix.prefill(model, prompts, scale * _noise(model, draws, PROMPT, prompts.shape[1]))


def score_in_noise(
    graph: nnx.GraphDef[Llama],
    params: Params,
    cache: Cache,
    rows: Completions,
    draws: UInt32[jax.Array, " G"],
    scale: Float32[jax.Array, ""],
) -> Scores:
    """As `score`, with noise as `prefill_in_noise` has it: all completions of a prompt meet the
    same.

    Args:
        graph: the model's structure, as `split` gives it.
        params: the model's; adapters come scaled.
        cache: of G prompts, read in noise.
        rows: R completions, of at most C tokens each.
        draws: of the prompts.
        scale: the noise's standard deviation, in units of the stream's root mean square.
    """
    model, count = nnx.merge(graph, *params), rows.tokens.shape[1] - 1
    noise = _noise(model, draws[rows.of], COMPLETION, count)
    return score(graph, params, cache, rows, scale * noise)


def _noise(
    model: Llama, draws: UInt32[jax.Array, " B"], part: int, tokens: int
) -> Float32[jax.Array, "L B {tokens} D"]:
    """What disturbs rows after each block, in units of the stream's size."""
    shape = (model.config.num_hidden_layers, tokens, model.config.hidden_size)

    def drawn(draw: UInt32[jax.Array, ""]) -> Float32[jax.Array, "L T D"]:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(NOISE), draw), part)
        return jax.random.normal(key, shape)

    noise: jax.Array = jax.vmap(drawn, out_axes=1)(draws)
    return noise


def shaken(params: Params, key: Key[jax.Array, ""], scale: Float32[jax.Array, ""]) -> Params:
    """Weights with noise on all matrices but adapters; see `damage.noisy`.

    Args:
        params: the model's.
        key: what the noise is drawn from.
        scale: its standard deviation, in units of each matrix's root mean square.
    """
    noisy = partial(damage.noisy, key=key, scale=scale)
    return Params(noisy(params.trainable), noisy(params.frozen))


def residuals(
    graph: nnx.GraphDef[Llama],
    params: Params,
    prompts: Int32[jax.Array, "G P"],
    lengths: Int32[jax.Array, " G"],
) -> Float32[jax.Array, "L G D"]:
    """The residual stream after each block at the last token of each prompt.

    Args:
        graph: the model's structure, as `split` gives it.
        params: the model's; adapters come scaled.
        prompts: int32 [G, P], padded on the right.
        lengths: int32 [G], tokens of each.

    Returns:
        fp32 [L, G, D].
    """
    model = nnx.merge(graph, *params)
    seen: jax.Array = model.residuals(prompts, lengths - 1)
    return seen


def completion_log_probs(
    graph: nnx.GraphDef[Llama],
    params: Params,
    batch: AnyBatch,
    disturbance: Float32[jax.Array, "#L #B #targets #D"] | None = None,
    key: Key[jax.Array, ""] | None = None,
    axis: str | None = None,
) -> Float32[jax.Array, "B targets"]:
    """Log-probabilities of the tokens of completions.

    Args:
        graph: the model's structure, as `split` gives it.
        params: the model's; adapters come scaled.
        batch: B rows of T tokens.
        disturbance: of the residual stream, as `Llama.__call__` takes it; None changes nothing.
        key: with one the tokens are such as the model draws itself.
        axis: under `vmap`, the name of its axis: the models then skip together what counts for
            none of them.

    Returns:
        fp32 [B, T - 1], in nats, zero outside completions.
    """
    model = nnx.merge(graph, *params)
    positions, seen = _own(batch) if isinstance(batch, PackedBatch) else (None, None)
    stream = model.last_residuals(batch.tokens[:, :-1], positions, seen, disturbance)
    targets, counted = batch.tokens[:, 1:], completion_mask(batch)
    if targets.size * model.config.vocab_size > MOST_LOGITS:
        return _in_blocks(model, stream, targets, counted, key, axis)
    logits = model.logits(stream)  # [B, T - 1, V]
    if key is not None:
        targets = jax.random.categorical(key, jax.lax.stop_gradient(logits))
    return _received(logits, targets, counted)[0]


def _in_blocks(
    model: Llama,
    stream: Float[jax.Array, "B targets D"],
    targets: Int[jax.Array, "B targets"],
    counted: Bool[jax.Array, "B targets"],
    key: Key[jax.Array, ""] | None,
    axis: str | None,
) -> Float32[jax.Array, "B targets"]:
    """The same without the logits of all tokens at once, which are computed again where a gradient
    passes. In each row what counts is put first, so that blocks without any are skipped."""
    rows, length = targets.shape
    columns = -(-length // BLOCKS)
    order = jnp.argsort(~counted, axis=1, stable=True)
    first = partial(jnp.take_along_axis, indices=order, axis=1)
    x = jnp.take_along_axis(stream, order[..., None], axis=1)

    @jax.checkpoint
    def block(number: Int[jax.Array, ""], of: Any) -> Float32[jax.Array, "B columns"]:
        x, targets, counted = of
        logits = model.logits(x)  # [B, columns, V]
        if key is not None:
            drawn = jax.random.fold_in(key, number)
            targets = jax.random.categorical(drawn, jax.lax.stop_gradient(logits))
        return _received(logits, targets, counted)[0]

    def one(number: Int[jax.Array, ""], of: Any) -> tuple[Int[jax.Array, ""], jax.Array]:
        some = jnp.sum(of[-1])
        some = some if axis is None else jax.lax.psum(some, axis)
        none = jnp.zeros((rows, columns))
        return number + 1, jax.lax.cond(some > 0, block, lambda *_: none, number, of)

    def cut(array: jax.Array) -> jax.Array:
        """[B, T - 1, …] in blocks [blocks, B, columns, …], the last filled up by zeros."""
        filled = [(0, 0), (0, columns * BLOCKS - length), *[(0, 0)] * (array.ndim - 2)]
        shape = (rows, BLOCKS, columns, *array.shape[2:])
        return jnp.moveaxis(jnp.pad(array, filled).reshape(shape), 1, 0)

    blocks = jax.tree.map(cut, (x, first(targets), first(counted)))
    _, found = jax.lax.scan(one, jnp.asarray(0), blocks)
    log_probs = jnp.moveaxis(found, 0, 1).reshape(rows, -1)[:, :length]
    return jnp.take_along_axis(log_probs, jnp.argsort(order, axis=1), axis=1)


def completion_mask(batch: AnyBatch) -> Bool[jax.Array, "B targets"]:
    """Which targets belong to completions."""
    if isinstance(batch, PackedBatch):
        packed: jax.Array = batch.completion[:, 1:]
        return packed
    at = jnp.arange(1, batch.tokens.shape[1])[None]
    mask: jax.Array = (at >= batch.spans[:, :1]) & (at < batch.spans[:, 1:])
    return mask


def _own(
    batch: PackedBatch,
) -> tuple[Int[jax.Array, "B targets"], Bool[jax.Array, "B targets targets"]]:
    """Positions, and which tokens each one sees: those before it in its own conversation."""
    segments = batch.segments[:, :-1]
    same = segments[:, :, None] == segments[:, None, :]
    return batch.positions[:, :-1], jnp.tril(same)


def _received(
    logits: Float32[jax.Array, "B targets V"],
    targets: Int[jax.Array, "B targets"],
    counted: Bool[jax.Array, "B targets"],
) -> tuple[Float32[jax.Array, "B targets"], Bool[jax.Array, " B"]]:
    """Log-probabilities of the targets that count, zero elsewhere, and whether all of a row's are
    the most likely."""
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    log_probs = jnp.where(counted, chosen - jax.nn.logsumexp(logits, axis=-1), 0.0)
    right = (jnp.argmax(logits, axis=-1) == targets) | ~counted
    return log_probs, jnp.all(right, axis=1)
