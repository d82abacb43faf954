"""Brings a group of phases from their parents to done, side by side: train, measure, store."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxorg import processes
from jaxorg.data.pool import Pool, batch_order
from jaxorg.engine.arrays import fetch
from jaxorg.engine.cohort import CHUNK, Scorer, Trainer
from jaxorg.engine.inputs import Inputs, data_seed
from jaxorg.engine.step import FAR_FUTURE, Batch, State, Tree
from jaxorg.evaluators import Measurement
from jaxorg.interrupt import Stopped
from jaxorg.llama.reading import Read
from jaxorg.plan import KINDS, Phase, evaluation_steps
from jaxorg.store import Record, Store

SEAM_SECONDS = 5.0  # about how long a call that trains may take: a signal is heeded after it
KEEP_SHARE = 0.05  # of the time may go into keeping states for a restart


@dataclass(frozen=True)
class Surroundings:
    """What a group works with."""

    inputs: Inputs
    store: Store
    weights_before: Callable[[Phase], Read]
    keeps_weights: Callable[[Phase], bool]  # whether those that a phase ends with are stored
    keeps_snapshots: bool  # whether those at measured steps are stored, too
    stopping: Callable[[], int | None]  # asks to stop at the next seam, with an exit code
    trained: Callable[[int], None]  # told of tokens, padding included, summed over phases
    finished: Callable[[Phase, Record], None]  # told of a phase that is done and stored
    devices: int
    provenance: Record  # what each record says of the program that made it


class Group:
    """Up to `lanes` phases that the same programs train and measure, from the same step on."""

    def __init__(self, around: Surroundings, scorer: Scorer, phases: Sequence[Phase]):
        self._around, self._scorer, self._phases = around, scorer, phases
        # One phase a lane; idle lanes repeat the last phase, and nobody looks at them.
        self._lanes = [*phases, *[phases[-1]] * (scorer.lanes - len(phases))]
        self._records = [_new_record() for _ in self._lanes]
        self._step = 0
        self._pace: float | None = None  # seconds a step took in the last call
        self._kept, self._cost = time.monotonic(), 0.0  # when a state was kept, in how long

    def measure_only(self) -> None:
        """Measure phases that are not trained."""
        weights = self._scorer.place_weights(self._readers(self._lanes))
        self._measure(weights, {}, final=True)
        processes.first("done", lambda: self._store(None))

    def train(self, trainer: Trainer) -> None:
        """Train and measure, from where an earlier try was cut short."""
        hyper = trainer.place(_hyper(self._lanes))
        state, frozen = self._begin(trainer, hyper)
        state = self._resume(trainer, state)
        batches = Batches(self._lanes, self._around.inputs, trainer.static.batch)
        tokens = trainer.static.batch * trainer.static.length * len(self._phases)
        self._around.trained(self._step * tokens)
        total = self._phases[0].steps
        for stop in evaluation_steps(self._phases[0]):
            while self._step < stop:
                began = time.monotonic()
                count = processes.first("chunk", partial(self._next_count, stop))
                chunk = batches.chunk(self._step, count)
                state, losses = trainer.train(
                    frozen, hyper, state, trainer.place_batch(chunk, 2), self._step, count, total
                )
                self._add_chunk(chunk, fetch(losses), count)
                self._pace = self._spend(began) / count
                self._around.trained(count * tokens)
                self._seam(state)
            if self._step == stop:  # otherwise it was measured before a restart
                self._measure(state.trainable, frozen, stop == total)
                self._keep_snapshot(state, stop, total)
        self._end(state)

    def _begin(self, trainer: Trainer, hyper: dict[str, jax.Array]) -> tuple[State, Tree]:
        lanes = self._lanes
        keys = trainer.place(_keys(lanes))
        if lanes[0].kind == "base":
            weights = trainer.initialise(keys)
        else:
            shared = trainer.model.shared_frozen
            weights = trainer.place_weights(self._readers(lanes[:1] if shared else lanes))
        return trainer.begin(keys, hyper, weights)

    def _readers(self, phases: Sequence[Phase]) -> list[Read]:
        """What reads the weights that phases start from; phases of one parent have the same."""
        readers = {phase.parent: self._around.weights_before(phase) for phase in phases}
        return [readers[phase.parent] for phase in phases]

    def _resume(self, trainer: Trainer, fresh: State) -> State:
        """The state that an earlier try kept, or the fresh one."""
        store = self._around.store
        if not processes.first("state", lambda: store.partial_step(self._phases[0].lineage)):
            return fresh
        kept = processes.in_turn(
            "states", lambda: [store.partial(phase.lineage, fresh) for phase in self._phases]
        )
        kept += [kept[-1]] * (len(self._lanes) - len(kept))
        self._step = kept[0][1]["step"]
        self._records = [deepcopy(progress["record"]) for _, progress in kept]
        return trainer.place_state([state for state, _ in kept])

    def _next_count(self, stop: int) -> int:
        """How many steps to take in the next call: up to a multiple of CHUNK, where weights are
        checked, or to `stop`, and no more than a seam may wait for."""
        whole = min(stop, (self._step // CHUNK + 1) * CHUNK) - self._step
        if self._pace is None:  # the first call shows
            return 1
        return max(1, min(whole, int(SEAM_SECONDS / max(self._pace, 1e-9))))

    def _seam(self, state: State) -> None:
        """Keep the state if a signal asks to stop, or if that takes a small share of the time."""
        exit_code = self._around.stopping()
        if exit_code or processes.first("seam", self._may_keep):
            began = time.monotonic()
            host = fetch(state)
            processes.first("keep", lambda: self._keep(host))
            self._kept = time.monotonic()
            self._cost = self._kept - began
        if exit_code:
            raise Stopped(exit_code)

    def _may_keep(self) -> bool:
        return time.monotonic() - self._kept >= self._cost / KEEP_SHARE

    def _keep(self, host: State) -> None:
        for lane, phase in enumerate(self._phases):
            progress = {"step": self._step, "record": self._records[lane]}
            self._around.store.keep_partial(phase.lineage, _lane(host, lane), progress)

    def _measure(self, trainable: Tree, frozen: Tree, final: bool) -> None:
        """Add this step's measurements to the records."""
        began, lanes = time.monotonic(), self._lanes
        measurer = self._around.inputs.measurer(lanes[0])
        prepared = [self._around.inputs.prepared(phase, final) for phase in lanes]
        measured = measurer.score(self._scorer, trainable, frozen, prepared)
        for record, found in zip(self._records, measured, strict=True):
            self._add_measurements(record, found)
        if final:
            told, samples = measurer.respond(
                self._scorer, trainable, frozen, prepared, lanes[0].config.evaluate, _keys(lanes)
            )
            for record, found, rows in zip(self._records, told, samples, strict=True):
                self._add_measurements(record, found)
                record["samples"] += [{"step": self._step, **row} for row in rows]
        self._spend(began)

    def _keep_snapshot(self, state: State, step: int, total: int) -> None:
        if self._around.keeps_snapshots and step < total:
            weights = fetch(state.trainable)
            processes.first("snapshot", lambda: self._save_snapshot(weights, step))

    def _save_snapshot(self, weights: Tree, step: int) -> None:
        for lane, phase in enumerate(self._phases):
            self._around.store.save_snapshot(phase.lineage, step, _lane(weights, lane))

    def _end(self, state: State) -> None:
        """Store what the phases came to."""
        diverged, weights = fetch((state.diverged, state.trainable))
        for record, step in zip(self._records, diverged.tolist(), strict=True):
            if step != FAR_FUTURE:
                record["diverged"] = step
        processes.first("done", lambda: self._store(weights))

    def _store(self, weights: Tree | None) -> None:
        """Store the phases, with their part of stacked weights where these are to be kept."""
        for lane, phase in enumerate(self._phases):
            kept = weights is not None and self._around.keeps_weights(phase)
            self._finish(phase, _lane(weights, lane) if kept else None, self._records[lane])

    def _finish(self, phase: Phase, weights: Tree | None, record: Record) -> None:
        shapes = jax.tree.leaves(self._around.inputs.shapes(phase.config.base.model))
        record["parameters"] = sum(leaf.size for leaf in shapes)
        record |= self._around.provenance
        self._around.store.save(phase.lineage, weights, record)
        self._around.finished(phase, record)

    def _spend(self, began: float) -> float:
        """Account for the time since `began` in equal shares; the seconds that it was."""
        seconds = time.monotonic() - began
        for record in self._records:
            record["chip_seconds"] += seconds * self._around.devices / len(self._phases)
        return seconds

    def _add_chunk(self, chunk: Batch, losses: np.ndarray, count: int) -> None:
        """Note the losses and tokens of `count` steps."""
        self._step += count
        tokens = chunk.spans[:, :, :, 1].sum(axis=(1, 2))  # a row's completion ends where it ends
        for record, row, seen in zip(self._records, losses, tokens, strict=True):
            finite = (float(loss) if np.isfinite(loss) else None for loss in row[:count])
            record["losses"] += finite
            record["tokens"] += int(seen)

    def _add_measurements(self, record: Record, found: Sequence[Measurement]) -> None:
        rows = [{"step": self._step, "tokens": record["tokens"], **m._asdict()} for m in found]
        record["evals"] += rows


class Batches:
    """The batches of stacked phases; each phase's are a function of its seed and the step."""

    def __init__(self, phases: Sequence[Phase], inputs: Inputs, batch: int):
        self._pools: list[Pool] = [inputs.pool(phase) for phase in phases]
        self._orders = [
            batch_order(len(pool.tokens), batch, data_seed(phase))
            for pool, phase in zip(self._pools, phases, strict=True)
        ]
        self._batch, self._length = batch, phases[0].config.length

    def chunk(self, start: int, count: int) -> Batch:
        """Steps `start` to `start + count`, as [run, CHUNK, B, ...]; later places are empty."""
        runs = len(self._pools)
        tokens = np.zeros((runs, CHUNK, self._batch, self._length), np.int32)
        spans = np.zeros((runs, CHUNK, self._batch, 2), np.int32)
        for run, (pool, order) in enumerate(zip(self._pools, self._orders, strict=True)):
            rows = np.stack([order[step] for step in range(start, start + count)])
            width = pool.tokens.shape[1]
            tokens[run, :count, :, :width] = pool.tokens[rows]
            spans[run, :count] = pool.spans[rows]
        return Batch(tokens, spans)


def _keys(phases: Sequence[Phase]) -> jax.Array:
    """One random key a phase, which depends on its seed and kind only."""
    keys = [jax.random.fold_in(jax.random.key(p.seed), KINDS.index(p.kind)) for p in phases]
    return jnp.stack(keys)


def _hyper(phases: Sequence[Phase]) -> dict[str, np.ndarray]:
    """The swept scalars of stacked phases, fp32 [run] each."""
    swept = [phase.training.swept() for phase in phases if phase.training]
    return {name: np.array([one[name] for one in swept], np.float32) for name in swept[0]}


def _lane(tree: Tree, lane: int) -> Tree:
    """One run's part of stacked arrays."""
    return jax.tree.map(lambda x: x[lane], tree)


def _new_record() -> Record:
    return {
        "evals": [],
        "losses": [],
        "samples": [],
        "tokens": 0,
        "diverged": None,
        "chip_seconds": 0.0,
    }
