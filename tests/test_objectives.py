"""What steps lower besides SFT's loss: against plain numpy, and by signs on small cases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from weights import placed_weights

from jaxorg.engine.batch import Batch
from jaxorg.engine.cohort import CHUNK_STEPS, Trainer
from jaxorg.engine.mesh import make_mesh, parse
from jaxorg.engine.params import abstract_model, create, split
from jaxorg.engine.step import State, initial, train_step
from jaxorg.llama.lora import LoraConfig
from jaxorg.llama.model import LlamaConfig
from jaxorg.planning.signature import ModelSignature, Signature
from jaxorg.treatments import PIECES, objective_of
from jaxorg.treatments.dpo import Dpo, Pairs, margins, pairs_of
from jaxorg.treatments.objective import Objective, Untrained
from jaxorg.treatments.rl import Samples

TINY = LlamaConfig(
    vocab_size=61,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    max_position_embeddings=16,
)
LENGTH, BATCH = 10, 4
OBJECTIVES = ("dpo", "rl")
SWEPT = {"dpo": {"dpo_beta": 0.3}, "rl": {"kl": 0.2, "ratio_clip": 0.1}}
HYPER = {"momentum": 0.0, "learning_rate": 0.5, "warmup": 0.0, "clip": np.inf, "lora_rank": 4.0}
SPANS = np.array([[3, 10], [5, 8], [2, 4], [9, 10]], np.int32)


def signature(objective: str, lora: LoraConfig | None = None) -> Signature:
    swept = tuple(SWEPT[objective])
    model = ModelSignature(TINY, lora)
    return Signature(model, LENGTH, BATCH, "sgd", "constant", objective=objective, swept=swept)


def batch(objective: str, seed: int = 0, *lead: int) -> Batch:
    """Random rows, and what is known of them, a little off what the model would say."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, TINY.vocab_size, (*lead, BATCH, LENGTH), np.int32)
    spans = np.broadcast_to(SPANS, (*lead, BATCH, 2))

    def drawn(*shape: int) -> Any:
        return rng.normal(size=(*lead, BATCH, *shape)).astype(np.float32)

    if objective == "dpo":
        return Batch(tokens, spans, Pairs(-20 + 3 * drawn()))
    shape = (LENGTH - 1,)
    return Batch(tokens, spans, Samples(drawn(), -4.1 + drawn(*shape), -4.1 + drawn(*shape)))


def of_completions(weights: Any, rows: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Tokens' log-probabilities by numpy from the model's logits, and which are of completions."""
    graph, _ = abstract_model(ModelSignature(TINY))
    model = jax.jit(lambda weights, tokens: nnx.merge(graph, weights, {})(tokens)[0])
    logits = np.asarray(model(weights, rows.tokens[:, :-1]), np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    every = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    found = np.take_along_axis(every, rows.tokens[:, 1:, None], axis=-1)[..., 0]
    at = np.arange(1, LENGTH)[None]
    return found, (at >= rows.spans[:, :1]) & (at < rows.spans[:, 1:])


def expected_dpo(log_probs: np.ndarray, inside: np.ndarray, known: Pairs) -> float:
    losses = []
    for chosen in (0, 2):
        gains = [
            log_probs[row][inside[row]].sum() - known.reference[row] for row in (chosen, chosen + 1)
        ]
        losses.append(np.log1p(np.exp(-0.3 * (gains[0] - gains[1]))))
    return float(np.mean(losses))


def expected_policy_gradient(log_probs: np.ndarray, inside: np.ndarray, known: Samples) -> float:
    terms = []
    for row, token in zip(*np.nonzero(inside), strict=True):
        now, advantage = log_probs[row, token], known.advantages[row]
        ratio = np.exp(now - known.before[row, token])
        gain = min(ratio * advantage, min(max(ratio, 0.9), 1.1) * advantage)
        gap = known.reference[row, token] - now
        terms.append(0.2 * (np.exp(gap) - gap - 1) - gain)
    return float(np.mean(terms))


EXPECTED = {"dpo": expected_dpo, "rl": expected_policy_gradient}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_loss_is_what_numpy_makes_of_the_models_logits(objective: str) -> None:
    form = signature(objective)
    graph, _ = abstract_model(form.model)
    fresh = jax.jit(lambda key: split(form.model, create(form.model, key))[1].trainable)
    weights = jax.tree.map(lambda leaf: 3 * leaf, fresh(jax.random.key(0)))
    rows = batch(objective)
    hyper = HYPER | SWEPT[objective]
    state = initial(form, hyper, weights)
    step = jax.jit(train_step, static_argnums=(0, 1))
    _, log = step(form, graph, {}, hyper, state, rows, np.int32(0), np.int32(1))
    wanted = EXPECTED[objective](*of_completions(weights, rows), rows.beside)  # type: ignore[operator]
    np.testing.assert_allclose(log.loss, wanted, rtol=1e-5)


def ipo(log_probs: Any, inside: Any, count: Any, pairs: Pairs, hyper: Any) -> Any:
    """Identity preference optimisation (Azar et al. 2023, equation 17)."""
    return ((margins(log_probs, pairs) - 0.5 / hyper["dpo_beta"]) ** 2).mean()


class Ipo(Dpo):
    objective = Objective(ipo, pairs_of)


def test_an_objective_that_the_engine_does_not_know_is_lowered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Defined here: no file of the engine names it. Every margin is drawn to half a `beta`th."""
    monkeypatch.setitem(PIECES.builtin, "ipo", Ipo)  # type: ignore[misc]
    form = replace(signature("dpo"), objective="ipo")
    graph, (weights, _) = split(form.model, create(form.model, jax.random.key(0)))
    rows = batch("dpo")
    found, inside = of_completions(weights, rows)
    start = np.where(inside, found, 0.0).astype(np.float32)
    known = pairs_of(Untrained(np.zeros(BATCH, np.float32), lambda: start, np.array))
    hyper = HYPER | {"dpo_beta": 0.5, "learning_rate": 0.05, "clip": 1.0}
    state, losses = initial(form, hyper, weights), []
    step = jax.jit(train_step, static_argnums=(0, 1))
    for number in range(60):
        batch_now = rows._replace(beside=known)
        state, log = step(form, graph, {}, hyper, state, batch_now, np.int32(number), np.int32(60))
        losses.append(float(log.loss))
    np.testing.assert_allclose(losses[0], 1.0, rtol=1e-4)  # at the start no margin is there yet
    assert losses[-1] < 0.1


def gradient(objective: str, log_probs: np.ndarray, beside: Any, **swept: float) -> np.ndarray:
    """Of the loss with respect to tokens' log-probabilities, all of which count."""
    inside = np.ones(log_probs.shape, bool)
    count = np.float32(log_probs.size)

    def loss(found: jax.Array) -> jax.Array:
        return objective_of(objective).loss(found, inside, count, beside, SWEPT[objective] | swept)

    return np.asarray(jax.jit(jax.grad(loss))(log_probs.astype(np.float32)))


def test_dpo_raises_what_is_chosen_and_most_where_it_is_least_preferred() -> None:
    log_probs = np.full((4, 3), -2.0)
    found = gradient("dpo", log_probs, Pairs(np.array([-6, -6, 0, -12], np.float32)))
    assert (found[[0, 2]] < 0).all() and (found[[1, 3]] > 0).all()
    assert abs(found[2, 0]) > abs(found[0, 0])
    np.testing.assert_allclose(found[0], -found[1])


def test_policy_gradients_raise_what_was_better_and_stop_where_ratios_are_clipped() -> None:
    log_probs = np.full((2, 3), -2.0)
    before = log_probs + np.array([0.0, 0.3, -0.3])  # ratios of 1, below and above
    samples = Samples(np.array([1.0, -1.0], np.float32), before, log_probs)
    found = gradient("rl", log_probs, samples, kl=0.0)
    assert (found[0, :2] < 0).all() and found[0, 2] == 0  # better, and already much likelier
    assert (found[1, [0, 2]] > 0).all() and found[1, 1] == 0


def test_divergence_pulls_back_to_the_start() -> None:
    log_probs = np.full((1, 3), -2.0)
    reference = log_probs + np.array([0.0, 0.5, -0.5])
    samples = Samples(np.zeros(1, np.float32), log_probs, reference)
    found = gradient("rl", log_probs, samples)[0]
    assert found[0] == 0
    assert found[1] < 0 < found[2]


def trained(objective: str, lora: LoraConfig | None, seeds: list[int]) -> tuple[State, np.ndarray]:
    """Three steps of numbered runs side by side; a run's number decides all of it."""
    form = signature(objective, lora)
    trainer = Trainer(form, make_mesh(parse("cpu-1")), len(seeds))
    each = [
        HYPER | {"lora_scale": 2.0} | {k: v * (1 + s) for k, v in SWEPT[objective].items()}
        for s in seeds
    ]
    hyper = trainer.place({k: np.array([h[k] for h in each], np.float32) for k in each[0]})
    keys = trainer.place(jax.vmap(jax.random.key)(np.array(seeds)))
    state, frozen = trainer.begin(keys, hyper, placed_weights(trainer, seeds))
    rows = [batch(objective, s, CHUNK_STEPS) for s in seeds]
    placed = trainer.place_rows(jax.tree.map(lambda *x: np.stack(x), *rows), 2)
    state, log = trainer.train(frozen, hyper, state, placed, 0, 3, 3)
    return jax.device_get(state), np.asarray(log.loss)[:, :3]


@pytest.mark.parametrize(
    ("objective", "lora"),
    [pytest.param("dpo", LoraConfig(4), marks=pytest.mark.long), ("rl", None)],
)
def test_stacked_equals_solo(objective: str, lora: LoraConfig | None) -> None:
    stacked, losses = trained(objective, lora, [0, 1, 2])
    solo, solo_losses = trained(objective, lora, [1])
    np.testing.assert_allclose(losses[1], solo_losses[0], rtol=1e-5)
    assert len(set(losses[:, -1])) == 3
    assert len(set(losses[1])) == 3
    for many, one in zip(jax.tree.leaves(stacked), jax.tree.leaves(solo), strict=True):
        np.testing.assert_allclose(many[1], one[0], rtol=2e-4, atol=2e-6)
