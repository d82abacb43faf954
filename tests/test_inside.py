"""The inside of models: the residual stream, disturbances of it, probes, and noise."""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy
from flax import nnx
from tiny import TINY, write_base
from weights import random_weights

from jaxorg import stats
from jaxorg.engine.batch import Completions
from jaxorg.engine.cohort import Passes, Scorer, stack
from jaxorg.engine.mesh import make_mesh, parse
from jaxorg.engine.params import Params, abstract_model
from jaxorg.evaluators import probe
from jaxorg.llama.lora import LoraConfig
from jaxorg.planning import manifest
from jaxorg.planning.signature import ModelSignature
from jaxorg.storage.folder import Folder
from jaxorg.storage.store import Store
from jaxorg.storage.weight_reader import everything
from jaxorg.sweepfile.labels import PHASE_KINDS
from sweeps import assert_same_rows, run, table

ROWS, TOKENS = 3, 10
WAYS = pytest.mark.parametrize(
    "way", [{"unroll": True}, {"unroll": False}, {"unroll": True, "remat": True}], ids=str
)


AT = jnp.array([2, 9, 5], np.int32)
SHAPE = (TINY.num_hidden_layers, ROWS, TOKENS, TINY.hidden_size)


def tokens() -> jax.Array:
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.integers(0, TINY.vocab_size, (ROWS, TOKENS), np.int32))


def drawn(block: int, token: int | slice) -> np.ndarray:
    """A disturbance after one block, at some tokens."""
    found = np.zeros(SHAPE, np.float32)
    found[block, :, token] = np.random.default_rng(0).normal(size=found[block, :, token].shape)
    return found


@WAYS
def test_the_stream_and_what_disturbs_it(way: dict[str, bool]) -> None:
    """The stream after the last block leads to the logits, and a disturbance there, where nothing
    mixes tokens any more, moves it in units of its own size. Zeros change no bit; an early
    disturbance reaches later tokens only."""
    signature = ModelSignature(TINY, **way)
    graph, weights = abstract_model(signature)[0], random_weights(signature)[0]

    @jax.jit
    def looked(weights: Any, late: jax.Array, early: jax.Array, none: jax.Array) -> Any:
        model = nnx.merge(graph, weights, {})

        def told(stream: jax.Array) -> jax.Array:
            normal = model.norm(stream[:, None])[:, 0]
            return jnp.einsum("bd,vd->bv", normal, model.embedding[...])

        seen = model.residuals(tokens(), AT)
        size = jnp.sqrt(jnp.mean(seen[-1] ** 2, axis=-1, keepdims=True))
        moved = seen[-1] + size * late[-1][np.arange(ROWS), AT]
        logits = [model(tokens(), disturbance=d)[0] for d in (None, none, late, early)]
        return seen, told(seen[-1]), told(moved), *logits

    disturbances = drawn(1, slice(None)), drawn(0, 4), np.zeros((1, 1, 1, SHAPE[-1]), np.float32)
    seen, told, moved, plain, none, late, early = looked(weights, *disturbances)
    here = np.arange(ROWS), AT
    assert seen.shape == (TINY.num_hidden_layers, ROWS, TINY.hidden_size)
    np.testing.assert_allclose(told, plain[here], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(moved, late[here], rtol=1e-3, atol=1e-3)
    assert np.abs(plain - late).max() > 0.1
    np.testing.assert_array_equal(none, plain)
    changed = (np.abs(early - plain) > 1e-3).any(axis=(0, 2))
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
    assert stats.area(higher, lower) == pytest.approx(expected, abs=1e-12)


def test_the_best_layer_is_chosen_on_the_fitting_half() -> None:
    """Layer 0 tells apart nothing; layer 1 the fitting half only; layer 2 the other half only."""
    layers = np.stack([features(0.0, seed=seed) for seed in range(3)], axis=1)  # [2, L, N, D]
    layers[1, 1, ::2] += 9.0
    by_chance = probe.direction(layers[:, 2, ::2])
    layers[1, 2, 1::2] += 9.0 * by_chance / np.linalg.norm(by_chance)
    found = {m.condition: m for m in probe.judged_layers(layers[0], layers[1])}
    assert list(found) == ["layer:0", "layer:1", "layer:2", "best"]
    assert found["layer:2"].value > 0.9
    assert found["best"] == found["layer:1"]._replace(condition="best")
    assert {m.n for m in found.values()} == {64}


def test_features_that_are_not_finite_tell_nothing() -> None:
    given = features(9.0)
    given[0, 3, 2] = np.nan
    assert probe.judged_auroc(features(9.0), given) == 0.5


@cache
def scorer(lanes: int, lora: LoraConfig | None = None, shared: bool = False) -> Scorer:
    model = ModelSignature(TINY, lora, shared_frozen=shared)
    return Scorer(model, make_mesh(parse("cpu-1")), lanes)


PROMPT = 4  # tokens; the rest of TOKENS is a completion


def placed(scorer: Scorer, runs: list[int]) -> tuple[Params, np.ndarray, Completions]:
    """Random weights, prompts and completions of numbered runs; weights that are shared are those
    of run 0."""
    found = [random_weights(scorer.model, run) for run in runs]
    rng = [np.random.default_rng(run) for run in runs]
    rows = np.stack([r.integers(0, TINY.vocab_size, (ROWS, TOKENS), np.int32) for r in rng])
    of = np.broadcast_to(np.arange(ROWS, dtype=np.int32), rows.shape[:2])
    about = (np.full_like(of, PROMPT), rows[..., PROMPT - 1 :], np.full_like(of, TOKENS - PROMPT))
    frozen = random_weights(scorer.model, 0)[1]
    if not scorer.model.shared_frozen:
        frozen = scorer.place(stack([weights[1] for weights in found]))
    trainable = scorer.place(stack([weights[0] for weights in found]))
    return Params(trainable, frozen), rows[..., :PROMPT], Completions(of, *about)


def scored(
    passes: Passes, params: Params, prompts: np.ndarray, rows: Completions, *noise: Any
) -> np.ndarray:
    """Log-probabilities [run, B]."""
    prefix = passes.prefill(params, prompts, *noise)
    return np.asarray(passes.score(params, prefix, rows, *noise).log_prob)


def in_noise(
    scorer: Scorer, runs: list[int], kind: str, scale: float = 0.1, draws: int = 0
) -> np.ndarray:
    """Log-probabilities [run, B] of numbered runs in noise."""
    (params, *asked), scaled = placed(scorer, runs), np.float32(scale)
    if kind == "activation":
        named = np.array([[run + draws, 7, 7] for run in runs], np.uint32)
        return scored(scorer.noisy_passes, params, *asked, named, scaled)
    keys = jax.vmap(jax.random.key)(np.array(runs) + draws)
    return scored(scorer.own_passes, scorer.shaken(params, keys, scaled), *asked)


NOISES = pytest.mark.parametrize("kind", ["activation", "weight"])


@NOISES
def test_noise_follows_from_its_size_and_what_names_it(kind: str) -> None:
    one = scorer(1)
    plain = scored(one.passes, *placed(one, [0]))
    np.testing.assert_allclose(in_noise(one, [0], kind, 0.0), plain, rtol=1e-6)
    little, much, again = (in_noise(one, [0], kind, scale) for scale in (0.01, 0.3, 0.3))
    assert 1e-4 < np.abs(little - plain).max() < np.abs(much - plain).max() / 5
    np.testing.assert_array_equal(much, again)
    assert np.abs(much - in_noise(one, [0], kind, 0.3, draws=5)).max() > 1e-3


@NOISES
def test_noise_on_stacked_runs_equals_solo(kind: str) -> None:
    stacked, solo = in_noise(scorer(2), [0, 1], kind), in_noise(scorer(1), [1], kind)
    np.testing.assert_allclose(stacked[1], solo[0], rtol=1e-4)


@pytest.mark.long
def test_noise_on_weights_that_runs_share_is_each_run_s_own() -> None:
    lora = LoraConfig(2)
    two = scorer(2, lora, shared=True)
    shared = in_noise(two, [0, 1], "weight")
    alone = in_noise(scorer(1, lora), [0], "weight")
    np.testing.assert_allclose(shared[0], alone[0], rtol=1e-4)
    keys = jax.vmap(jax.random.key)(np.array([0, 1]))
    _, frozen = two.shaken(placed(two, [0, 0])[0], keys, np.float32(0.1))
    assert np.abs(frozen["embedding"][0] - frozen["embedding"][1]).max() > 0.1


def test_residuals_of_stacked_runs_equal_solo() -> None:
    def seen(scorer: Scorer, params: Params, prompts: np.ndarray) -> np.ndarray:
        lengths = np.full(prompts.shape[:2], PROMPT - 1, np.int32)
        return np.asarray(scorer.residuals(params, prompts, lengths))

    stacked, solo = (
        seen(s, *placed(s, runs)[:2]) for s, runs in ((scorer(2), [0, 1]), (scorer(1), [1]))
    )
    np.testing.assert_allclose(stacked[1], solo[0], rtol=1e-4, atol=1e-5)
    # Of a prompt's last token, which sees nothing of what is behind it.
    params, prompts, _ = placed(scorer(1), [1])
    at = np.arange(PROMPT)
    cut = np.where(at < PROMPT - 1, prompts, 0)
    np.testing.assert_array_equal(seen(scorer(1), params, cut), solo)
    other = np.where(at == PROMPT - 2, 0, prompts)
    assert np.abs(seen(scorer(1), params, other) - solo).max() > 0.1


TRAIN = "train: {steps: 3, batch: 4, examples: 64, learning_rate: 1e-3"
PRUNED = "{kind: prune, share: 0.3, train: {steps: 0, learning_rate: 1e-3}}"
TREATED = [
    PRUNED,
    "{kind: latent_adversarial, epsilon: 0.2, layer: 1, " + TRAIN + "}}",
]
LOOKED = (
    "evaluate={points: 1, prompts: 8, final_prompts: 16, "
    "probe: true, noise: {activations: [0.0, 0.1], weights: [0.0]}, "
    "answers: {prompts: 8, new_tokens: 8}}"
)


def treated_by(*treatments: str) -> tuple[str, ...]:
    return LOOKED, f"grid=[{{treatment: [{', '.join(treatments)}]}}]", "seeds=1"


def test_a_sweep_treats_and_measures_the_inside(tmp_path: Path) -> None:
    """Rows do not depend on which other runs there are, none of them is missing, and a phase that
    takes no step keeps what it did to the weights."""
    base = write_base(tmp_path / "base", config=TINY)
    out = run(tmp_path / "all" / "out", base, *treated_by(*TREATED))
    alone = run(tmp_path / "one" / "out", base, *treated_by(PRUNED))
    assert set(table(out, "runs").status) == {"done"}
    runs = table(alone, "runs")
    assert_same_rows(alone, out, list(runs.run_id))
    evals = table(out, "evals")
    looked = evals[evals.metric == "probe_auroc"]
    assert set(looked.phase) == {"organism", "treatment", "reversal"}
    assert set(looked.condition) == {"layer:0", "layer:1", "best"}
    assert looked.value.between(0, 1).all()
    keys = ["run_id", "phase", "step", "metric"]
    for condition in ("clean", "triggered"):
        for noise in ("activation-noise:0.0", "weight-noise:0.0"):
            noisy = evals[evals.condition == f"{condition}:{noise}"].set_index(keys)
            plain = evals[evals.condition == condition].set_index(keys).loc[noisy.index]
            assert len(noisy) >= 6
            pd.testing.assert_frame_equal(noisy[["k", "n"]], plain[["k", "n"]])
    known = manifest.read(alone)
    assert known is not None
    fingerprint = known.runs[runs.run_id[0]][PHASE_KINDS.index("treatment")]
    shapes = abstract_model(ModelSignature(TINY))[1].trainable
    weights = everything(Store(Folder(alone, pytest.fail)).reader(fingerprint), shapes)
    kernel = weights["blocks"]["mlp"]["up"]["kernel"]
    assert (kernel == 0).mean() == pytest.approx(0.3, abs=1e-3)
