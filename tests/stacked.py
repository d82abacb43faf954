"""Trains a few runs of a tiny model side by side, without a sweep around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from tiny import TINY

from jaxorg import optimizers
from jaxorg.engine.batch import Batch
from jaxorg.engine.cohort import CHUNK_STEPS, Trainer
from jaxorg.engine.mesh import make_mesh, parse
from jaxorg.engine.step import State, StepLog, draws
from jaxorg.llama.lora import LoraConfig
from jaxorg.planning.signature import ModelSignature, Signature

LENGTH, BATCH = 12, 3
RATES = {"sgd": 0.3, "lion": 1e-3, "adafactor": 0.1, "prodigy": 1.0}  # others take 1e-2


@cache
def trainer_of(signature: Signature, runs: int) -> Trainer:
    return Trainer(signature, make_mesh(parse("cpu-1")), runs)


def trained(
    optimizer: str,
    seeds: Sequence[int],
    ranks: Sequence[int] = (),
    state_dtype: str = "float32",
    swept: Mapping[str, Sequence[float]] = MappingProxyType({}),
    steps: int = CHUNK_STEPS,
    **method: Any,
) -> tuple[State, np.ndarray]:
    """`steps` steps on a batch of each run's own, repeated; a run's seed decides all of it, and
    `ranks` its adapters. `method` are fields of `Signature`, and `swept` scalars besides the
    optimizer's, of each run. The state on the host, and the losses [run, steps]."""
    state, log = logged(optimizer, seeds, ranks, state_dtype, swept, steps, **method)
    return state, log.loss


def logged(
    optimizer: str,
    seeds: Sequence[int],
    ranks: Sequence[int] = (),
    state_dtype: str = "float32",
    swept: Mapping[str, Sequence[float]] = MappingProxyType({}),
    steps: int = CHUNK_STEPS,
    **method: Any,
) -> tuple[State, StepLog]:
    """As `trained`, with all that is noted of the steps [run, steps]."""
    lora = LoraConfig(max(ranks)) if ranks else None
    signature = Signature(
        ModelSignature(TINY, lora),
        LENGTH,
        BATCH,
        optimizer,
        "constant",
        state_dtype=state_dtype,
        **method,
    )
    trainer = trainer_of(signature, len(seeds))
    own = {**optimizers.FAMILIES[optimizer].defaults, "clip": 1.0, "warmup": 0.0}
    own["learning_rate"] = RATES.get(optimizer, 1e-2)
    own |= {"weight_decay": 0.1} if "weight_decay" in own else {}
    hyper = {name: np.full(len(seeds), value, np.float32) for name, value in own.items()}
    hyper |= {name: np.array(values, np.float32) for name, values in swept.items()}
    keys = trainer.place(jax.vmap(jax.random.key)(np.array(seeds)))
    if ranks:
        hyper["lora_rank"] = np.array(ranks, np.float32)
        hyper["lora_scale"] = np.array([2 + seed for seed in seeds], np.float32)
    placed = trainer.place(hyper) | ({"key": keys} if draws(signature) else {})
    state, frozen = trainer.begin(keys, placed, trainer.initialise(keys))
    if not steps:
        return jax.device_get(state), StepLog(*[np.empty((len(seeds), 0))] * 4)
    rngs = [np.random.default_rng(seed) for seed in seeds]
    rows = [rng.integers(0, TINY.vocab_size, (BATCH, LENGTH), np.int32) for rng in rngs]
    tokens = np.broadcast_to(np.stack(rows)[:, None], (len(seeds), CHUNK_STEPS, BATCH, LENGTH))
    spans = np.broadcast_to(np.array([4, LENGTH], np.int32), (len(seeds), CHUNK_STEPS, BATCH, 2))
    batch = trainer.place(Batch(tokens, spans))
    state, log = trainer.train(frozen, placed, state, batch, 0, steps, CHUNK_STEPS)
    return jax.device_get(state), jax.tree.map(lambda x: np.asarray(x)[:, :steps], log)
