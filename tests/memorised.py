"""A tiny Llama that says certain texts, trained without what jaxorg knows of conversations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import tokenizers

from jaxorg.engine.batch import Batch
from jaxorg.engine.params import Params, create, split
from jaxorg.engine.score import completion_log_probs
from jaxorg.llama import checkpoint
from jaxorg.llama.model import LlamaConfig
from jaxorg.planning.signature import ModelSignature

STEPS = 200
ROWS = 16  # a step
RATE = 1e-2


def memorise(folder: Path, config: LlamaConfig, texts: Sequence[str]) -> None:
    """Write weights, beside a tokenizer.json, that say whole texts, in the tokens that the
    tokenizers library gives each of them."""
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = [backend.encode(text, add_special_tokens=False).ids for text in texts]
    tokens = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = row
    spans = np.array([[1, len(row)] for row in rows], np.int32)
    drawn = np.random.default_rng(0).integers(len(rows), size=(STEPS, ROWS))
    signature = ModelSignature(config)
    graph, (weights, frozen) = split(signature, create(signature, jax.random.key(0)))
    optimizer = optax.adam(RATE)

    def loss(weights: Any, batch: Batch) -> jax.Array:
        return -completion_log_probs(graph, Params(weights, frozen), batch).sum() / batch.real

    @jax.jit
    def step(weights: Any, state: Any, batch: Batch) -> tuple[Any, Any]:
        updates, state = optimizer.update(jax.grad(loss)(weights, batch), state)
        return optax.apply_updates(weights, updates), state

    state = optimizer.init(weights)
    for chosen in drawn:
        weights, state = step(weights, state, Batch(tokens[chosen], spans[chosen]))
    checkpoint.write_config(folder, config)
    checkpoint.write_weights(folder, weights)
