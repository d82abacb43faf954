"""The inside of models: the residual stream, disturbances of it, probes, and noise."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from flax import nnx
from tiny import TINY
from weights import random_weights

from jaxorg.engine.cohort import Scorer, stack
from jaxorg.engine.mesh import make_mesh, parse
from jaxorg.engine.step import Batch, Scores, abstract_model
from jaxorg.evaluators import probe
from jaxorg.llama.lora import LoraConfig
from jaxorg.llama.model import Llama
from jaxorg.signature import ModelStatic

ROWS, TOKENS = 3, 10
WAYS = pytest.mark.parametrize(
    "way", [{"unroll": True}, {"unroll": False}, {"unroll": True, "remat": True}], ids=str
)


def of_model(way: dict[str, bool], function: Any, *arrays: Any) -> Any:
    """A function of a random model, compiled."""
    static = ModelStatic(TINY, **way)
    graph = abstract_model(static)[0]
    return jax.jit(lambda w, *a: function(nnx.merge(graph, w, {}), *a))(
        random_weights(static)[0], *arrays
    )


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def tokens() -> np.ndarray:
    return np.random.default_rng(1).integers(0, TINY.vocab_size, (ROWS, TOKENS), np.int32)


def told(model: Llama, stream: jax.Array) -> jax.Array:
    """Logits [B, V] from the stream after the last block [B, D]."""
    return jnp.einsum("bd,vd->bv", model.norm(stream[:, None])[:, 0], model.embedding[...])


@WAYS
def test_the_last_residual_leads_to_the_logits(way: dict[str, bool]) -> None:
    at = np.array([2, 9, 5], np.int32)
    seen = of_model(way, lambda model, t, at: model.residuals(t, at), tokens(), at)
    assert seen.shape == (TINY.num_hidden_layers, ROWS, TINY.hidden_size)
    logits = of_model(way, lambda model, t: model(t)[0], tokens())
    found = of_model(way, told, seen[-1])
    np.testing.assert_allclose(found, logits[np.arange(ROWS), at], rtol=1e-4, atol=1e-4)


@WAYS
def test_a_disturbance_is_in_units_of_the_stream(way: dict[str, bool]) -> None:
    """After the last block, where nothing mixes tokens any more."""
    at = np.array([2, 9, 5], np.int32)
    disturbance = np.zeros((2, ROWS, TOKENS, TINY.hidden_size), np.float32)
    disturbance[1] = drawn(ROWS, TOKENS, TINY.hidden_size)
    logits = of_model(way, lambda m, t, d: m(t, disturbance=d)[0], tokens(), disturbance)
    stream = of_model(way, lambda model, t, at: model.residuals(t, at), tokens(), at)[-1]
    size = np.sqrt(np.mean(np.square(stream), axis=-1, keepdims=True))
    moved = stream + size * disturbance[1][np.arange(ROWS), at]
    found = of_model(way, told, moved)
    np.testing.assert_allclose(found, logits[np.arange(ROWS), at], rtol=1e-3, atol=1e-3)
    plain = of_model(way, lambda model, t: model(t)[0], tokens())
    assert np.abs(plain - logits).max() > 0.1


@WAYS
def test_a_disturbance_of_zeros_changes_nothing(way: dict[str, bool]) -> None:
    plain = of_model(way, lambda model, t: model(t)[0], tokens())
    zeros = np.zeros((1, 1, 1, TINY.hidden_size), np.float32)  # stretched
    found = of_model(way, lambda m, t, d: m(t, disturbance=d)[0], tokens(), zeros)
    np.testing.assert_array_equal(found, plain)


def test_a_disturbance_of_an_early_block_reaches_later_tokens_only() -> None:
    disturbance = np.zeros((2, 1, TOKENS, TINY.hidden_size), np.float32)
    disturbance[0, :, 4] = drawn(TINY.hidden_size)
    plain = of_model({}, lambda model, t: model(t)[0], tokens())
    found = of_model({}, lambda m, t, d: m(t, disturbance=d)[0], tokens(), disturbance)
    changed = (np.abs(found - plain) > 1e-3).any(axis=(0, 2))
    assert changed.tolist() == [False] * 4 + [True] * 6


def features(shift: float, prompts: int = 64, width: int = 8, seed: int = 0) -> np.ndarray:
    """Features [2, N, D] of two sorts of prompts, `shift` apart along each axis."""
    found = np.random.default_rng(seed).normal(size=(2, prompts, width))
    found[1] += shift
    return found


def test_a_probe_tells_apart_what_can_be_told_apart() -> None:
    assert probe.judged_auroc(features(9.0), features(9.0, seed=1)) == 1.0
    assert probe.judged_auroc(features(-9.0), features(9.0, seed=1)) == 0.0
    assert abs(probe.judged_auroc(features(0.0), features(0.0, seed=1)) - 0.5) < 0.12


def test_a_probe_is_the_ridge_regression() -> None:
    """More dimensions than prompts, solved for the dimensions."""
    given = features(0.5, prompts=10, width=30)
    rows = given.reshape(20, 30) - given.reshape(20, 30).mean(axis=0)
    penalty = probe.RIDGE * np.sum(rows**2) / 20
    sides = np.array([-1.0] * 10 + [1.0] * 10)
    expected = scipy.linalg.solve(rows.T @ rows + penalty * np.eye(30), rows.T @ sides)
    np.testing.assert_allclose(probe.direction(given), expected, rtol=1e-9)


def test_auroc_is_that_of_mann_and_whitney() -> None:
    rng = np.random.default_rng(0)
    higher, lower = rng.integers(0, 6, 40).astype(float), rng.integers(0, 5, 30).astype(float)
    expected = scipy.stats.mannwhitneyu(higher, lower).statistic / (40 * 30)
    assert probe.auroc(higher, lower) == pytest.approx(expected, abs=1e-12)


def test_the_best_layer_is_chosen_on_the_fitting_half() -> None:
    """Layer 0 tells apart nothing; layer 1 the fitting half only; layer 2 the other half only."""
    layers = np.stack([features(0.0, seed=seed) for seed in range(3)], axis=1)  # [2, L, N, D]
    layers[1, 1, ::2] += 9.0
    layers[1, 2, 1::2] += 9.0
    found = {m.condition: m for m in probe.measure(layers[0], layers[1])}
    assert list(found) == ["layer:0", "layer:1", "layer:2", "best"]
    assert found["best"] == found["layer:1"]._replace(condition="best")
    assert {m.n for m in found.values()} == {64}


def test_features_that_are_not_finite_tell_nothing() -> None:
    given = features(9.0)
    given[0, 3, 2] = np.nan
    assert probe.judged_auroc(features(9.0), given) == 0.5


def scorer(lanes: int, lora: LoraConfig | None = None, shared: bool = False) -> Scorer:
    model = ModelStatic(TINY, lora, shared_frozen=shared)
    return Scorer(model, make_mesh(parse("cpu-1")), lanes)


def placed(scorer: Scorer, runs: list[int]) -> tuple[Any, Any, Batch]:
    """Random weights and rows of numbered runs; weights that are shared are those of run 0."""
    found = [random_weights(scorer.model, run) for run in runs]
    rng = [np.random.default_rng(run) for run in runs]
    rows = [r.integers(0, TINY.vocab_size, (ROWS, TOKENS), np.int32) for r in rng]
    spans = np.broadcast_to(np.array([4, TOKENS], np.int32), (len(runs), ROWS, 2))
    frozen = random_weights(scorer.model, 0)[1]
    if not scorer.model.shared_frozen:
        frozen = scorer.place(stack([weights[1] for weights in found]))
    trainable = scorer.place(stack([weights[0] for weights in found]))
    return trainable, frozen, Batch(np.stack(rows), spans)


def in_noise(
    scorer: Scorer, runs: list[int], kind: str, scale: float, draws: int = 0
) -> tuple[Scores, Scores]:
    """Scores of numbered runs without noise, and with it."""
    trainable, frozen, batch = placed(scorer, runs)
    if kind == "activation":
        named = np.array([[run + draws, 7, 7] for run in runs], np.uint32)
        found = scorer.score_in_activation_noise(trainable, frozen, batch, named, scale)
    else:
        keys = jax.vmap(jax.random.key)(np.array(runs) + draws)
        found = scorer.score_in_weight_noise(trainable, frozen, batch, keys, scale)
    return jax.device_get((scorer.score(trainable, frozen, batch), found))


KINDS = pytest.mark.parametrize("kind", ["activation", "weight"])


@KINDS
def test_no_noise_is_no_change(kind: str) -> None:
    one = scorer(1)
    plain, found = in_noise(one, [0], kind, 0.0)
    np.testing.assert_array_equal(found.log_prob, plain.log_prob)
    little, much = (in_noise(one, [0], kind, scale)[1] for scale in (0.01, 0.3))
    moved = [np.abs(each.log_prob - plain.log_prob).max() for each in (little, much)]
    assert 1e-4 < moved[0] < moved[1] / 5


@KINDS
@pytest.mark.parametrize("lora", [None, LoraConfig(2)], ids=["full", "lora"])
def test_noise_on_stacked_runs_equals_solo(kind: str, lora: LoraConfig | None) -> None:
    stacked = in_noise(scorer(3, lora), [0, 1, 2], kind, 0.1)[1]
    solo = in_noise(scorer(1, lora), [1], kind, 0.1)[1]
    np.testing.assert_allclose(stacked.log_prob[1], solo.log_prob[0], rtol=1e-4)


def test_noise_on_weights_that_runs_share_is_each_run_s_own() -> None:
    lora = LoraConfig(2)
    shared = in_noise(scorer(2, lora, shared=True), [0, 1], "weight", 0.1)[1]
    own = in_noise(scorer(1, lora), [0], "weight", 0.1)[1]
    np.testing.assert_allclose(shared.log_prob[0], own.log_prob[0], rtol=1e-4)
    two = scorer(2, lora, shared=True)
    trainable, frozen, batch = placed(two, [0, 0])
    keys = jax.vmap(jax.random.key)(np.array([0, 1]))
    found = two.score_in_weight_noise(trainable, frozen, batch, keys, 0.1)
    assert np.abs(found.log_prob[0] - found.log_prob[1]).min() > 1e-4


@KINDS
def test_noise_follows_from_what_names_it(kind: str) -> None:
    one = scorer(1)
    first, again = (in_noise(one, [0], kind, 0.1)[1].log_prob for _ in range(2))
    other = in_noise(one, [0], kind, 0.1, draws=5)[1].log_prob
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_residuals_of_stacked_runs_equal_solo() -> None:
    stacked, solo = (
        np.asarray(s.residuals(*placed(s, runs)))
        for s, runs in ((scorer(3), [0, 1, 2]), (scorer(1), [1]))
    )
    np.testing.assert_allclose(stacked[1], solo[0], rtol=1e-4, atol=1e-5)
    # Of the token before the completion.
    trainable, _, batch = placed(scorer(1), [1])
    weights = jax.tree.map(lambda leaf: leaf[0], trainable)
    graph = abstract_model(ModelStatic(TINY))[0]
    model = nnx.merge(graph, weights, {})
    expected = model.residuals(batch.tokens[0], np.full(ROWS, 3))
    np.testing.assert_allclose(solo[0], expected, rtol=1e-4, atol=1e-5)
