"""One training step and one evaluation of ONE run. Nothing here knows of other runs.

Shape letters as in `jaxorg.llama.model`; here B is the rows of a batch, and of its T tokens all but
the first are targets: T - 1.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Bool, Float, Float32, Int, Key, UInt32

from jaxorg import optimizers
from jaxorg.engine import latent
from jaxorg.llama import damage, lora
from jaxorg.llama.model import Llama
from jaxorg.optimizers import state as kept
from jaxorg.planning.signature import ModelSignature, Signature
from jaxorg.treatments import objective_of

Tree = Any  # nested dict of arrays
Array = Any  # of jax or numpy
# Past this norm fp32 activations overflow and norms turn them to zeros, which look finite;
# the weights of an 8B Llama have a norm of about 2e3.
WEIGHT_LIMIT = 1e6
FAR_FUTURE = 2**31 - 1  # the step at which a healthy run diverged
ROUNDING = 2**16  # names the random numbers that round an optimizer's state
DRAWING = 2**16 + 1  # those that an optimizer draws itself
NOISE = 2**17  # those that disturb activations and weights


class Batch(NamedTuple):
    """Tokenised conversations, one a row, on the host or on a device."""

    tokens: Array  # int32 [B, T], padded on the right
    spans: Array  # int32 [B, 2]: first and one past last token of the completion
    beside: Any = ()  # what an objective knows of each row, or where targets to score stand

    @property
    def real(self) -> Array:
        """Tokens that are no padding []: a row's completion ends where the row does."""
        return self.spans[..., 1].sum(axis=-1)


class PackedBatch(NamedTuple):
    """Tokenised conversations, several one after another in a row. None sees another."""

    tokens: Array  # int32 [B, T], padded on the right
    segments: Array  # int32 [B, T]: the number of a token's conversation in its row; padding 0
    positions: Array  # int32 [B, T]: of tokens in their conversations, from 0
    completion: Array  # bool [B, T]: tokens that count

    @property
    def real(self) -> Array:
        """Tokens that are no padding []."""
        return (self.segments > 0).sum(axis=(-2, -1))


AnyBatch = Batch | PackedBatch
B = TypeVar("B", bound=AnyBatch)


class Params(NamedTuple):
    """A model's parameters as nested dicts of arrays: those that are trained, and those that are
    not. With adapters these are the weights under them, else there are none."""

    trainable: Tree
    frozen: Tree


class State(NamedTuple):
    """What a step changes."""

    trainable: Tree
    optimizer: Tree
    diverged: jax.Array  # int32 []: the step at which the run stopped being finite


class StepLog(NamedTuple):
    """What is noted of a step, fp32 [] each."""

    loss: Array  # of the batch before the step; for SFT in nats a token
    grad_norm: Array  # of the whole gradient before it is clipped
    update_norm: Array  # of what is added to the weights, 0 where the step is not taken
    learning_rate: Array  # with its schedule


class Scores(NamedTuple):
    """How a model receives given completions."""

    exact: jax.Array  # bool [B]: greedy decoding would give just this completion
    log_prob: jax.Array  # fp32 [B]: of the completion, in nats


@cache  # a sweep asks for each phase, a plan for each point of a grid
def abstract_model(signature: ModelSignature) -> tuple[nnx.GraphDef[Llama], Params]:
    """The model's structure, and its parameters as shapes."""
    return split(signature, nnx.eval_shape(lambda: create(signature, jax.random.key(0))))


def create(signature: ModelSignature, key: Key[jax.Array, ""]) -> Llama:
    """A freshly initialised model with its adapters, if any.

    Args:
        signature: its shape, and how it is compiled.
        key: what all its weights are drawn from, fp32.
    """
    knobs = (signature.dtype, signature.unroll, signature.remat)
    with nnx.use_eager_sharding(False):  # axes' names are notes: a model is created without a mesh
        return Llama(signature.config, nnx.Rngs(key), signature.lora, *knobs)


def split(signature: ModelSignature, model: Llama) -> tuple[nnx.GraphDef[Llama], Params]:
    """A module as structure and parameters."""
    trained = nnx.LoRAParam if signature.lora else nnx.Param
    graph, trainable, *rest = nnx.split(model, trained, ...)
    (frozen,) = rest
    return graph, Params(nnx.to_pure_dict(trainable), nnx.to_pure_dict(frozen))


def batch_shapes(signature: Signature) -> AnyBatch:
    """What one run trains on in one step, as shapes. All zeros is a batch of padding."""
    rows = (signature.batch, signature.length)
    tokens = jax.ShapeDtypeStruct(rows, jnp.int32)
    if signature.packing:
        return PackedBatch(tokens, tokens, tokens, jax.ShapeDtypeStruct(rows, jnp.bool_))
    spans = jax.ShapeDtypeStruct((signature.batch, 2), jnp.int32)
    if not signature.objective:
        return Batch(tokens, spans)
    return Batch(tokens, spans, objective_of(signature.objective).shapes(*rows))


def initial(signature: Signature, hyper: optimizers.Hyper, trainable: Tree) -> State:
    """The state before the first step."""
    transformation = optimizers.build(signature.optimizer, {**hyper, "learning_rate": 0.0})
    moments = transformation.init(trainable)
    if signature.state_dtype == "bfloat16":
        moments = kept.narrowed(moments, trainable)
    return State(trainable, moments, jnp.asarray(FAR_FUTURE, jnp.int32))


def abstract_state(signature: Signature) -> State:
    """One run's training state as shapes."""
    hyper = dict.fromkeys(optimizers.FAMILIES[signature.optimizer].defaults, 0.0)
    trainable = abstract_model(signature.model)[1].trainable
    state: State = jax.eval_shape(lambda p: initial(signature, hyper, p), trainable)
    return state


def schedule(
    signature: Signature,
    warmup: Float[jax.Array, ""],
    step: Int[jax.Array, ""],
    total: Int[jax.Array, ""],
) -> Float[jax.Array, ""]:
    """The share of the peak learning rate at a step: linear warm-up, then constant, linear to zero
    or half a cosine to zero.

    Args:
        signature: says what comes after the warm-up.
        warmup: its share of all steps, 0 to 1.
        step: counted from 0.
        total: how many steps there are.

    Returns:
        0 to 1.
    """
    warm = warmup * total.astype(jnp.float32)
    now = step.astype(jnp.float32)
    rise = jnp.minimum(1.0, (now + 1.0) / jnp.maximum(warm, 1.0))
    done = jnp.clip((now - warm) / jnp.maximum(total.astype(jnp.float32) - warm, 1.0), 0.0, 1.0)
    match signature.schedule:
        case "linear":
            return rise * (1.0 - done)
        case "cosine":
            return rise * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
        case _:
            return rise


def train_step(
    signature: Signature,
    graph: nnx.GraphDef[Llama],
    frozen: Tree,
    hyper: optimizers.Hyper,
    state: State,
    batch: AnyBatch,
    step: Int[jax.Array, ""],
    total: Int[jax.Array, ""],
) -> tuple[State, StepLog]:
    """One optimizer step; the loss is on completion tokens only: their mean negative
    log-probability, or what another objective makes of them; with `inner_steps` under the
    disturbance that so many steps of ascent found to raise it most.

    A run whose loss or gradient stops being finite keeps the state it had, for good.

    Args:
        signature: what is compiled: optimizer, objective, schedule and shapes.
        graph: the model's structure, as `split` gives it.
        frozen: nested dict of the parameters that are not trained.
        hyper: the swept scalars, fp32 [] each, and the run's random `key` where a step draws
            (`draws`).
        state: as the step before left it.
        batch: B rows of T tokens.
        step: counted from 0.
        total: steps of the phase, for the schedule.

    Returns:
        The new state, and what is noted of the step.
    """

    def objective(
        trainable: Tree,
        disturbance: Float32[jax.Array, "L B targets D"] | None = None,
        key: Key[jax.Array, ""] | None = None,
    ) -> Float32[jax.Array, ""]:
        """The loss on a batch's labels, or on such as the model would give, drawn by `key`."""
        if signature.model.lora:
            trainable = lora.scaled(trainable, hyper["lora_scale"])
        log_probs, _ = _completion(graph, Params(trainable, frozen), batch, disturbance, key)
        count = _counted(batch).astype(jnp.float32)
        if not signature.objective or key is not None:
            return -jnp.sum(log_probs) / count
        assert isinstance(batch, Batch)
        mask = _completion_mask(batch)
        lower = objective_of(signature.objective).loss
        return lower(log_probs, mask, count, batch.beside, hyper)

    worst = None
    if signature.inner_steps:
        shape = _stream(signature.model, batch.tokens)
        where = hyper["latent_layer"], hyper["latent_epsilon"], signature.inner_steps
        worst = latent.worst(partial(objective, state.trainable), shape, *where)
    loss, grads = jax.value_and_grad(objective)(state.trainable, worst)
    norm = optax.tree.norm(grads)
    grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, hyper["clip"] / norm), grads)
    rate = hyper["learning_rate"] * schedule(signature, hyper["warmup"], step, total)

    def sampled(key: Key[jax.Array, ""]) -> tuple[Tree, Float32[jax.Array, ""]]:
        grads = jax.grad(objective)(state.trainable, worst, key)
        return grads, _counted(batch).astype(jnp.float32)

    own = {**hyper, "learning_rate": rate, **_now(signature, hyper, step)}
    transformation = optimizers.build(signature.optimizer, own)
    before = kept.widened(state.optimizer)
    updates, moments = transformation.update(grads, before, state.trainable, sampled=sampled)
    if signature.change == "prune":
        updates = damage.still_pruned(state.trainable, updates)
    moved = optax.apply_updates(state.trainable, updates)
    if signature.state_dtype == "bfloat16":
        key = jax.random.fold_in(jax.random.fold_in(hyper["key"], ROUNDING), step)
        moments = kept.rounded(moments, state.optimizer, key)

    # Known before the update, so that choosing between old and new is part of its arithmetic. A
    # comparison with NaN is false.
    healthy = (norm < jnp.inf) & (loss < jnp.inf)
    added = optax.tree.norm(updates)
    if optimizers.FAMILIES[signature.optimizer].refresh:  # what it makes of them may not be finite
        healthy &= added < jnp.inf
    alive = (state.diverged == FAR_FUTURE) & healthy
    new = (moved, moments)
    old = (state.trainable, state.optimizer)
    trainable, moments = jax.tree.map(lambda n, o: jnp.where(alive, n, o), new, old)
    diverged = jnp.where(alive, FAR_FUTURE, jnp.minimum(state.diverged, step))
    log = StepLog(loss, norm, jnp.where(alive, added, 0.0), rate)
    return State(trainable, moments, diverged), log


def draws(signature: Signature) -> bool:
    """Whether a step draws random numbers, and needs the run's key."""
    return signature.state_dtype == "bfloat16" or optimizers.FAMILIES[signature.optimizer].draws


def _now(
    signature: Signature, hyper: optimizers.Hyper, step: Int[jax.Array, ""]
) -> dict[str, jax.Array]:
    """What an optimizer is told of a step (`optimizers.Family`). `step` is the same for all runs,
    so that what depends on it alone is done or not, rather than done and thrown away."""
    family = optimizers.FAMILIES[signature.optimizer]
    found = {"step": step}
    if every := signature.refresh or family.refresh:
        found["due"] = step % every == 0
    if family.draws:
        found["key"] = jax.random.fold_in(jax.random.fold_in(hyper["key"], DRAWING), step)
    return found


def evaluated(signature: Signature, hyper: optimizers.Hyper, state: State) -> Tree:
    """The weights that a model is measured with, stored and gone on from, if a family says so."""
    of_family = optimizers.FAMILIES[signature.optimizer].evaluated
    if of_family is None:
        return state.trainable
    found = of_family(state.trainable, state.optimizer, hyper)
    return damage.still_pruned(state.trainable, found) if signature.change == "prune" else found


def check_weights(state: State, step: Int[jax.Array, ""], due: Bool[jax.Array, ""]) -> State:
    """Call a run diverged whose weights have grown beyond any use.

    Asked for at few, fixed steps: reading all weights at each step would cost a tenth of it.

    Args:
        state: after the step.
        step: counted from 0.
        due: whether to look; if not, the state stays as it is.
    """
    sane = ~due | (optax.tree.norm(state.trainable) < WEIGHT_LIMIT)
    diverged = jnp.where(sane, state.diverged, jnp.minimum(state.diverged, step))
    return state._replace(diverged=diverged)


def changed(
    signature: Signature, hyper: optimizers.Hyper, key: Key[jax.Array, ""], weights: Tree
) -> Tree:
    """The full weights that a phase starts from, after what it does to them at its start.

    Args:
        signature: says what that is.
        hyper: the swept scalars, `noise_scale` or `pruned_share` among them.
        key: of the run and phase.
        weights: nested dict of all parameters, as the phase before left them.
    """
    match signature.change:
        case "weight_noise":
            return damage.noisy(weights, jax.random.fold_in(key, NOISE), hyper["noise_scale"])
        case "prune":
            return damage.pruned(weights, hyper["pruned_share"])
        case _:
            return weights


def score(
    graph: nnx.GraphDef[Llama],
    params: Params,
    batch: Batch,
    disturbance: Float32[jax.Array, "#L #B #targets #D"] | None = None,
) -> Scores:
    """Score a batch's completions by teacher forcing, in one pass; no logits are computed but where
    a completion may be.

    A completion counts as exact when each of its tokens is the most likely one given those
    before it, which is when greedy decoding produces it.

    Args:
        graph: the model's structure, as `split` gives it.
        params: the model's; adapters come scaled.
        batch: B rows of T tokens, a completion each, and beside them int32 [B, C] where their
            tokens stand, from the first on; what lies beyond a completion does not count.
        disturbance: of the residual stream, as `Llama.__call__` takes it; None changes nothing.
    """
    model = nnx.merge(graph, *params)
    places = batch.beside  # [B, C]
    scored = places < batch.spans[:, 1:]
    places = jnp.clip(places, 1, batch.tokens.shape[1] - 1)
    logits, _ = model(batch.tokens[:, :-1], at=places - 1, disturbance=disturbance)  # [B, C, V]
    targets = jnp.take_along_axis(batch.tokens, places, axis=1)
    log_probs, right = _received(logits, targets, scored)
    return Scores(right, jnp.sum(log_probs, axis=1))


def score_in_activation_noise(
    signature: ModelSignature,
    graph: nnx.GraphDef[Llama],
    params: Params,
    batch: Batch,
    draws: UInt32[jax.Array, " B"],
    scale: Float32[jax.Array, ""],
) -> Scores:
    """As `score`, with Gaussian noise on the residual stream after each block.

    Args:
        signature: the model's shape.
        graph: the model's structure, as `split` gives it.
        params: the model's; adapters come scaled.
        batch: B rows of T tokens, a completion each.
        draws: with its length, all that a row's noise depends on.
        scale: the noise's standard deviation, in units of the stream's root mean square.
    """
    layers, _, *inner = _stream(signature, batch.tokens)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(NOISE), draws)
    noise = jax.vmap(lambda key: jax.random.normal(key, (layers, *inner)), out_axes=1)(keys)
    return score(graph, params, batch, scale * noise)


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
    graph: nnx.GraphDef[Llama], params: Params, batch: Batch
) -> Float32[jax.Array, "L B D"]:
    """The residual stream after each block at the last token of each row's prompt.

    Args:
        graph: the model's structure, as `split` gives it.
        params: the model's; adapters come scaled.
        batch: B rows of T tokens; a prompt ends where the completion begins.

    Returns:
        fp32 [L, B, D].
    """
    model = nnx.merge(graph, *params)
    seen: jax.Array = model.residuals(batch.tokens, batch.spans[:, 0] - 1)
    return seen


def _stream(signature: ModelSignature, tokens: jax.Array) -> tuple[int, int, int, int]:
    """The shape of a batch's residual stream after all blocks: L, B, T - 1, D."""
    config, (rows, length) = signature.config, tokens.shape
    return config.num_hidden_layers, rows, length - 1, config.hidden_size


def token_log_probs(
    graph: nnx.GraphDef[Llama], params: Params, batch: Batch
) -> Float32[jax.Array, "B targets"]:
    """Log-probabilities of completion tokens.

    Args:
        graph: the model's structure, as `split` gives it.
        params: the model's; adapters come scaled.
        batch: B rows of T tokens, a completion each.

    Returns:
        fp32 [B, T - 1], in nats, zero outside completions.
    """
    return _completion(graph, params, batch)[0]


def _counted(batch: AnyBatch) -> Int[jax.Array, ""]:
    """How many tokens of a batch count."""
    if isinstance(batch, PackedBatch):
        return jnp.sum(batch.completion)
    return jnp.sum(batch.spans[:, 1] - batch.spans[:, 0])


def _completion_mask(batch: AnyBatch) -> Bool[jax.Array, "B targets"]:
    """Which targets belong to completions."""
    completion_mask: jax.Array
    if isinstance(batch, PackedBatch):
        completion_mask = batch.completion[:, 1:]
    else:
        at = jnp.arange(1, batch.tokens.shape[1])[None]
        completion_mask = (at >= batch.spans[:, :1]) & (at < batch.spans[:, 1:])
    return completion_mask


def _own(
    batch: PackedBatch,
) -> tuple[Int[jax.Array, "B targets"], Bool[jax.Array, "B targets targets"]]:
    """Positions, and which tokens each one sees: those before it in its own conversation."""
    segments = batch.segments[:, :-1]
    same = segments[:, :, None] == segments[:, None, :]
    return batch.positions[:, :-1], jnp.tril(same)


def _completion(
    graph: nnx.GraphDef[Llama],
    params: Params,
    batch: AnyBatch,
    disturbance: Float32[jax.Array, "#L #B #targets #D"] | None = None,
    key: Key[jax.Array, ""] | None = None,
) -> tuple[Float32[jax.Array, "B targets"], Bool[jax.Array, " B"]]:
    """Log-probabilities of completion tokens, zero elsewhere, and whether all of a row's are the
    most likely. With a `key` they are of tokens that the model draws itself."""
    model = nnx.merge(graph, *params)
    targets = batch.tokens[:, 1:]  # logits are [B, T - 1, V]
    if isinstance(batch, PackedBatch):
        logits, _ = model(batch.tokens[:, :-1], *_own(batch), disturbance=disturbance)
    else:
        logits, _ = model(batch.tokens[:, :-1], disturbance=disturbance)
    completion_mask = _completion_mask(batch)
    if key is not None:
        targets = jax.random.categorical(key, jax.lax.stop_gradient(logits))
    return _received(logits, targets, completion_mask)


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
