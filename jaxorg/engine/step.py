"""One training step of ONE run. Nothing here knows of other runs.

Shape letters as in `jaxorg.engine.score`.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Bool, Float, Float32, Int, Key

from jaxorg import optimizers
from jaxorg.engine import latent
from jaxorg.engine.batch import AnyBatch, Array, Batch, PackedBatch
from jaxorg.engine.params import Params, Tree, abstract_model
from jaxorg.engine.score import NOISE, completion_log_probs, completion_mask
from jaxorg.llama import damage, lora
from jaxorg.llama.model import Llama
from jaxorg.optimizers import state as kept
from jaxorg.planning.signature import Signature
from jaxorg.treatments import objective_of

# Past this norm fp32 activations overflow and norms turn them to zeros, which look finite;
# the weights of an 8B Llama have a norm of about 2e3.
WEIGHT_LIMIT = 1e6
FAR_FUTURE = 2**31 - 1  # the step at which a healthy run diverged
ROUNDING = 2**16  # names the random numbers that round an optimizer's state
DRAWING = 2**16 + 1  # those that an optimizer draws itself


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
    axis: str | None = None,
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
        axis: under `vmap`, the name of its axis.

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
        params = Params(trainable, frozen)
        log_probs = completion_log_probs(graph, params, batch, disturbance, key, axis)
        count = _counted(batch).astype(jnp.float32)
        if not signature.objective or key is not None:
            return -jnp.sum(log_probs) / count
        assert isinstance(batch, Batch)
        mask = completion_mask(batch)
        lower = objective_of(signature.objective).loss
        return lower(log_probs, mask, count, batch.beside, hyper)

    worst = None
    if signature.inner_steps:
        config, (rows, length) = signature.model.config, batch.tokens.shape
        shape = config.num_hidden_layers, rows, length - 1, config.hidden_size  # the stream's
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


def _counted(batch: AnyBatch) -> Int[jax.Array, ""]:
    """How many tokens of a batch count."""
    if isinstance(batch, PackedBatch):
        return jnp.sum(batch.completion)
    return jnp.sum(batch.spans[:, 1] - batch.spans[:, 0])
