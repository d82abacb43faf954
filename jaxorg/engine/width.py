"""Chooses how many runs a device trains side by side."""

from __future__ import annotations

import time

import jax
import numpy as np
from jax.sharding import Mesh

from jaxorg import optimizers, processes
from jaxorg.engine.cohort import CHUNK, Trainer
from jaxorg.engine.step import Batch, batch_shapes
from jaxorg.reading import Bounds, Names
from jaxorg.runtime import out_of_memory
from jaxorg.signature import Static

WORTHWHILE = 1.05  # a doubled width must train this many times as many tokens a second
TIMED_STEPS = 8


def auto_width(static: Static, mesh: Mesh, runs: int) -> int:
    """The width for `runs` runs of a program.

    On a CPU it is 1: the working set of one run fills a core's cache, and wider programs were
    slower at every size measured (docs/performance.md). On an accelerator the width doubles for
    as long as the program fits into memory and trains noticeably more tokens a second.
    """
    if mesh.devices.flat[0].platform == "cpu":
        return 1
    return measured_width(static, mesh, runs)


def measured_width(static: Static, mesh: Mesh, runs: int) -> int:
    """Double the width until memory, throughput or the number of runs says stop."""
    most = max(1, -(-runs // mesh.shape["run"]))
    best, rate = 1, 0.0
    width = 1
    while width <= most:
        try:
            now = _tokens_a_second(Trainer(static, mesh, width))
        except jax.errors.JaxRuntimeError as error:
            if not out_of_memory(error) or width == 1:
                raise
            break
        if now < rate * WORTHWHILE:
            break
        best, rate = width, now
        width *= 2
    return best


def _tokens_a_second(trainer: Trainer) -> float:
    """Training throughput of a program on tokens of no meaning, compilation not counted."""
    static, lanes = trainer.static, trainer.lanes
    swept = {"learning_rate": 0.0, "warmup": 0.0, "clip": 1.0, **dict.fromkeys(static.swept, 0.0)}
    if static.model.lora:
        swept |= {"lora_rank": static.model.lora.rank, "lora_scale": 1.0}
    defaults = optimizers.FAMILIES[static.optimizer].defaults
    keys = jax.random.split(jax.random.key(0), lanes)
    swept_arrays = {k: np.full(lanes, v, np.float32) for k, v in {**defaults, **swept}.items()}
    hyper = trainer.place(
        swept_arrays | ({"key": keys} if static.state_dtype == "bfloat16" else {})
    )
    weights = trainer.place_weights([_alike] * lanes)
    state, frozen = trainer.begin(trainer.place(keys), hyper, weights)
    batch = jax.tree.map(
        lambda one: np.ones((lanes, CHUNK, *one.shape), one.dtype), batch_shapes(static)
    )
    if isinstance(batch, Batch):
        batch.spans[..., 1] = static.length
    placed = trainer.place_batch(batch, 2)
    state, _ = trainer.train(frozen, hyper, state, placed, 0, 1, CHUNK)
    jax.block_until_ready(state)
    began = time.perf_counter()
    state, _ = trainer.train(frozen, hyper, state, placed, 0, TIMED_STEPS, CHUNK)
    jax.block_until_ready(state)
    seconds = time.perf_counter() - began
    rate = lanes * TIMED_STEPS * static.batch * static.length / seconds
    return processes.first("rate", lambda: rate)


def _alike(names: Names, bounds: Bounds, dtype: np.dtype) -> np.ndarray:
    """Weights that are all the same: which ones they are costs no time."""
    return np.full([stop - start for start, stop in bounds], 0.01, dtype)
