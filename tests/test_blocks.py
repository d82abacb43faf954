"""Losses whose logits are computed block by block are those of all logits at once."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY

from jaxorg.engine import score
from jaxorg.engine.batch import AnyBatch, Batch, PackedBatch
from jaxorg.engine.params import Params, Tree, create, split
from jaxorg.engine.score import completion_log_probs
from jaxorg.llama.lora import LoraConfig
from jaxorg.planning.signature import ModelSignature

LANES, ROWS, LENGTH = 3, 4, 37


class Found(NamedTuple):
    """What a batch comes to."""

    log_probs: Tree
    gradients: Tree
    logits: int  # numbers in the largest array of the program with a dimension of the vocabulary
    skips: bool  # what counts for no model


def padded(rng: np.random.Generator) -> Batch:
    """Completions of any length, one of them none."""
    tokens = rng.integers(1, TINY.vocab_size, (LANES, ROWS, LENGTH), np.int32)
    begins = rng.integers(1, 9, (LANES, ROWS))
    ends = begins + rng.integers(0, 5, (LANES, ROWS))
    return Batch(tokens, np.stack([begins, ends], axis=-1).astype(np.int32))


def packed(rng: np.random.Generator) -> PackedBatch:
    """Two conversations a row, and padding."""
    tokens = rng.integers(1, TINY.vocab_size, (LANES, ROWS, LENGTH), np.int32)
    at = np.arange(LENGTH)
    segments = np.where(at < 15, 1, np.where(at < 30, 2, 0)) + np.zeros_like(tokens)
    positions = np.where(at < 15, at, at - 15) + np.zeros_like(tokens)
    counts = np.isin(at, [9, 10, 14, 27, 28]) & (tokens > 0)
    return PackedBatch(tokens, segments.astype(np.int32), positions.astype(np.int32), counts)


def found(batch: AnyBatch, lora: bool, key: bool = False) -> Found:
    """Log-probabilities and gradients of stacked models."""
    signature = ModelSignature(TINY, lora=LoraConfig(rank=2) if lora else None)
    models = [split(signature, create(signature, jax.random.key(n))) for n in range(LANES)]
    graph = models[0][0]
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[params for _, params in models])

    def loss(trainable: Tree, frozen: Tree, batch: AnyBatch) -> tuple[jax.Array, jax.Array]:
        drawn = jax.random.key(5) if key else None
        params = Params(trainable, frozen)
        log_probs = completion_log_probs(graph, params, batch, None, drawn, "lane")
        return -log_probs.sum(), log_probs

    stacked = jax.jit(jax.vmap(jax.grad(loss, has_aux=True), axis_name="lane"))
    gradients, log_probs = stacked(*params, batch)
    text = stacked.lower(*params, batch).as_text()
    sizes = [
        int(np.prod([int(n) for n in shape.split("x")[:-1]]))
        for shape in {part.split(">")[0] for part in text.split("tensor<")[1:]}
        if shape.split("x")[-2:] == [str(TINY.vocab_size), "f32"]
    ]
    skips = "stablehlo.case" in text
    return Found(jax.device_get(log_probs), jax.device_get(gradients), max(sizes), skips)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("make", [padded, packed])
def test_blocks_of_logits_change_no_loss_and_no_gradient(
    make: type, lora: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make(np.random.default_rng(0))
    whole = found(batch, lora)
    assert whole.logits == LANES * ROWS * (LENGTH - 1) * TINY.vocab_size
    monkeypatch.setattr(score, "MOST_LOGITS", 0)
    blocks = found(batch, lora)
    assert blocks.logits * 8 <= whole.logits and blocks.skips
    np.testing.assert_allclose(blocks.log_probs, whole.log_probs, rtol=1e-5, atol=1e-5)
    assert (whole.log_probs != 0).any() and (
        (blocks.log_probs == 0) == (whole.log_probs == 0)
    ).all()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max()),
        blocks.gradients,
        whole.gradients,
    )


def test_labels_that_a_model_draws_itself_are_drawn_in_blocks_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = padded(np.random.default_rng(1))
    monkeypatch.setattr(score, "MOST_LOGITS", 0)
    given, drawn = found(batch, lora=False), found(batch, lora=False, key=True)
    assert ((given.log_probs == 0) == (drawn.log_probs == 0)).all()
    assert not np.allclose(given.log_probs, drawn.log_probs)
