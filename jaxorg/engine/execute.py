"""Walks a plan: load parents, train, measure, store, and skip what is done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxorg.config import fingerprint
from jaxorg.data.pool import Pool, batch_order
from jaxorg.engine.cohort import CHUNK, Scorer, Trainer, stack
from jaxorg.engine.inputs import Inputs, data_seed
from jaxorg.engine.step import FAR_FUTURE, Batch, State, Tree
from jaxorg.engine.width import auto_width
from jaxorg.evaluators import Measurement
from jaxorg.plan import KINDS, Cohort, Phase, Plan, evaluation_steps
from jaxorg.signature import Static
from jaxorg.store import Record, Store

KEEP_EVERY = 60.0  # seconds of training between states kept for a restart


class Watcher(Protocol):
    """Who is told how a sweep goes on."""

    def began(self, cohort: Cohort, left: int) -> None:
        """A cohort begins; `left` of its phases are still to do."""

    def trained(self, tokens: int) -> None:
        """That many tokens, padding included, were trained on, summed over phases."""

    def finished(self, phase: Phase, record: Record) -> None:
        """A phase is done and stored."""


@dataclass
class Progress:
    """What a group of phases has gathered so far: one record a lane."""

    records: list[Record]
    step: int = 0  # steps trained
    measured: int = -1  # the last step that was measured
    seconds: float = 0.0  # wall clock


class Engine:
    """Executes cohorts on one mesh. Programs are made once a static signature."""

    def __init__(
        self,
        plan: Plan,
        inputs: Inputs,
        store: Store,
        mesh: Mesh,
        width: int | None,
        watcher: Watcher,
    ):
        """`width` None chooses one for each program."""
        self._plan, self._store, self._watcher = plan, store, watcher
        self._phases = {phase.lineage: phase for phase in plan.phases}
        self._devices: int = mesh.size
        self._width = cache(lambda static: width or auto_width(static, mesh, _most(plan, static)))
        self._inputs = inputs
        self._trainer = cache(lambda static, width: Trainer(static, mesh, width))
        self._scorer = cache(lambda model, width: Scorer(model, mesh, width))

    def run(self, cohort: Cohort) -> None:
        """Bring every phase of a cohort to done."""
        width = self._width(cohort.static) if cohort.static else 1
        scorer = self._scorer(cohort.model, width)
        groups = self._groups(cohort.phases, scorer.lanes)
        self._watcher.began(cohort, sum(map(len, groups)))
        for group in groups:
            if cohort.static is None:
                self._measure_only(scorer, group)
            else:
                self._train(self._trainer(cohort.static, width), scorer, group)

    def _groups(self, phases: Sequence[Phase], lanes: int) -> list[Sequence[Phase]]:
        """What is left to do, in groups of up to `lanes`; groups cut short in training first."""
        whole = list(_cut(phases, lanes))
        begun = [group for group in whole if self._store.has_partial(_name(group, lanes))]
        taken = {phase.lineage for group in begun for phase in group}
        left = [p for p in phases if p.lineage not in taken and not self._store.has(p.lineage)]
        return [*begun, *_cut(left, lanes)]

    def _measure_only(self, scorer: Scorer, phases: Sequence[Phase]) -> None:
        lanes = _filled(phases, scorer.lanes)
        weights = scorer.place(stack([self._weights_before(phase) for phase in lanes]))
        progress = Progress([_new_record() for _ in lanes])
        self._measure(scorer, weights, {}, lanes, progress, final=True)
        for phase, record in zip(phases, progress.records, strict=False):
            self._finish(phase, None, record, progress.seconds / len(phases))

    def _train(self, trainer: Trainer, scorer: Scorer, phases: Sequence[Phase]) -> None:
        """Train and measure up to `lanes` phases side by side, from their parents to the end."""
        static = trainer.static
        lanes = _filled(phases, trainer.lanes)
        hyper = trainer.place(_hyper(lanes))
        state, frozen = self._begin(trainer, lanes, hyper)
        name = _name(phases, trainer.lanes)
        state, progress = self._resume(trainer, name, state)
        tokens = static.batch * static.length * sum(not self._store.has(p.lineage) for p in phases)
        self._watcher.trained(progress.step * tokens)
        pools = [self._inputs.pool(phase) for phase in lanes]
        batches = Batches(pools, [data_seed(phase) for phase in lanes], static.batch, static.length)
        steps, kept = phases[0].steps, time.monotonic()
        for stop in evaluation_steps(phases[0]):
            while progress.step < stop:
                began = time.monotonic()
                count = min(CHUNK, stop - progress.step)
                chunk = batches.chunk(progress.step, count)
                state, losses = trainer.train(
                    frozen, hyper, state, trainer.place(chunk), progress.step, count, steps
                )
                _add_chunk(progress, chunk, np.asarray(losses), count)
                progress.seconds += time.monotonic() - began
                self._watcher.trained(count * tokens)
                if time.monotonic() - kept > KEEP_EVERY:
                    self._store.save_partial(name, jax.device_get(state), vars(progress))
                    kept = time.monotonic()
            if progress.measured < stop:
                self._measure(scorer, state.trainable, frozen, lanes, progress, stop == steps)
        diverged = jax.device_get(state.diverged).tolist()
        weights = jax.device_get(trainer.merge(state.trainable, frozen))
        for lane, phase in enumerate(phases):
            record = progress.records[lane]
            if diverged[lane] != FAR_FUTURE:
                record["diverged"] = diverged[lane]
            own = jax.tree.map(lambda x, at=lane: x[at], weights)
            self._finish(phase, own, record, progress.seconds / len(phases))
        self._store.drop_partial(name)

    def _begin(
        self, trainer: Trainer, lanes: Sequence[Phase], hyper: dict[str, jax.Array]
    ) -> tuple[State, Tree]:
        keys = trainer.place(_keys(lanes))
        if lanes[0].kind == "base":
            weights = trainer.initialise(keys)
        elif trainer.model.shared_frozen:
            weights = trainer.place_shared(self._weights_before(lanes[0]))
        else:
            weights = trainer.place(stack([self._weights_before(phase) for phase in lanes]))
        return trainer.begin(keys, hyper, weights)

    def _resume(self, trainer: Trainer, name: str, state: State) -> tuple[State, Progress]:
        """State and progress of training that was cut short, or those of a fresh start."""
        kept = self._store.partial(name, jax.device_get(state))
        if kept is None:
            return state, Progress([_new_record() for _ in range(trainer.lanes)])
        return trainer.place(kept[0]), Progress(**kept[1])

    def _measure(
        self,
        scorer: Scorer,
        trainable: Tree,
        frozen: Tree,
        lanes: Sequence[Phase],
        progress: Progress,
        final: bool,
    ) -> None:
        """Add this step's measurements to the records."""
        began = time.monotonic()
        measurer = self._inputs.measurer(lanes[0])
        prepared = [self._inputs.prepared(phase, final) for phase in lanes]
        measured = measurer.score(scorer, trainable, frozen, prepared)
        for record, found in zip(progress.records, measured, strict=True):
            _add_measurements(record, progress.step, found)
        if final:
            told, samples = measurer.respond(
                scorer, trainable, frozen, prepared, lanes[0].config.evaluate, _keys(lanes)
            )
            for record, found, rows in zip(progress.records, told, samples, strict=True):
                _add_measurements(record, progress.step, found)
                record["samples"] += [{"step": progress.step, **row} for row in rows]
        progress.measured = progress.step
        progress.seconds += time.monotonic() - began

    def _finish(self, phase: Phase, weights: Tree | None, record: Record, seconds: float) -> None:
        """Store a phase, unless that was done before a restart."""
        if self._store.has(phase.lineage):
            return
        shapes = jax.tree.leaves(self._inputs.shapes(phase.config.base.model))
        record["parameters"] = sum(leaf.size for leaf in shapes)
        record["chip_seconds"] = seconds * self._devices
        self._store.save(phase.lineage, weights, record)
        self._watcher.finished(phase, record)

    def _weights_before(self, phase: Phase) -> Tree:
        """The full weights that a phase starts from."""
        if phase.parent is None:
            return self._inputs.base_weights(phase.config.base.model)
        parent = self._phases[phase.parent]
        if not parent.steps:
            return self._weights_before(parent)
        return self._store.weights(parent.lineage, self._inputs.shapes(phase.config.base.model))


class Batches:
    """The batches of stacked phases; each phase's are a function of its seed and the step."""

    def __init__(self, pools: Sequence[Pool], seeds: Sequence[int], batch: int, length: int):
        self._pools = pools
        self._orders = [
            batch_order(len(pool.tokens), batch, seed)
            for pool, seed in zip(pools, seeds, strict=True)
        ]
        self._batch, self._length = batch, length

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


def _most(plan: Plan, static: Static) -> int:
    """Phases in the largest cohort of a signature."""
    return max(len(cohort.phases) for cohort in plan.cohorts if cohort.static == static)


def _cut(phases: Sequence[Phase], lanes: int) -> Iterator[Sequence[Phase]]:
    """Stretches of up to `lanes` phases, in order."""
    return (phases[at : at + lanes] for at in range(0, len(phases), lanes))


def _name(phases: Sequence[Phase], lanes: int) -> str:
    """What a group's state is kept under, should its training be cut short."""
    return fingerprint([phase.lineage for phase in _filled(phases, lanes)])


def _filled(phases: Sequence[Phase], lanes: int) -> list[Phase]:
    """One phase a lane; idle lanes repeat the last phase, and nobody looks at them."""
    return [*phases, *[phases[-1]] * (lanes - len(phases))]


def _keys(phases: Sequence[Phase]) -> jax.Array:
    """One random key a phase, which depends on its seed and kind only."""
    keys = [jax.random.fold_in(jax.random.key(p.seed), KINDS.index(p.kind)) for p in phases]
    return jnp.stack(keys)


def _hyper(phases: Sequence[Phase]) -> dict[str, np.ndarray]:
    """The swept scalars of stacked phases, fp32 [run] each."""
    swept = [phase.training.swept() for phase in phases if phase.training]
    return {name: np.array([one[name] for one in swept], np.float32) for name in swept[0]}


def _new_record() -> Record:
    return {"evals": [], "losses": [], "samples": [], "tokens": 0, "diverged": None}


def _add_chunk(progress: Progress, chunk: Batch, losses: np.ndarray, count: int) -> None:
    """Note the losses and tokens of `count` steps."""
    progress.step += count
    tokens = chunk.spans[:, :, :, 1].sum(axis=(1, 2))  # a row's completion ends where it ends
    for record, row, seen in zip(progress.records, losses, tokens, strict=True):
        finite = (float(loss) if np.isfinite(loss) else None for loss in row[:count])
        record["losses"] += finite
        record["tokens"] += int(seen)


def _add_measurements(record: Record, step: int, found: Sequence[Measurement]) -> None:
    rows = [{"step": step, "tokens": record["tokens"], **m._asdict()} for m in found]
    record["evals"] += rows
