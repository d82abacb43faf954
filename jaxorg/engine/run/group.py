"""Brings a group of phases from their parents to done, side by side: train, measure, store."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxorg.distributed import processes
from jaxorg.distributed.interrupt import Stopped
from jaxorg.engine import arrays
from jaxorg.engine.arrays import fetch
from jaxorg.engine.cohort import CHUNK, Scorer, Trainer
from jaxorg.engine.measure import activations
from jaxorg.engine.measure.read_answers import read_answers
from jaxorg.engine.run.answers import Answerer, Asked, unspelled
from jaxorg.engine.run.inputs import Answers, Inputs, Samples
from jaxorg.engine.run.profile import Traced
from jaxorg.engine.run.recorder import Recorder, new_record
from jaxorg.engine.step import FAR_FUTURE, Params, State, Tree, abstract_state, draws
from jaxorg.engine.train.batches import Batches, all_batches
from jaxorg.engine.train.rounds import Models, Rounds
from jaxorg.evaluators import Evaluator, Measurement, View
from jaxorg.evaluators.base import OfAnswers
from jaxorg.llama import lora
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.planning.measurements import ANSWERS, Names
from jaxorg.planning.phases import Phase, evaluation_steps
from jaxorg.planning.signature import ModelSignature, Signature
from jaxorg.scorers.endpoint import Ask
from jaxorg.scorers.judge import Judge
from jaxorg.storage.store import Record, Store
from jaxorg.storage.weight_reader import WeightReader, everything

SAFE_POINT_SECONDS = 5.0  # about how long a call that trains may take: a signal is heeded after it
TEACHER_TEMPERATURE = 1.0  # organisms are distilled from samples
KEEP_SHARE = 0.05  # of the time may go into keeping states for a restart


@dataclass(frozen=True)
class Surroundings:
    """What a group works with."""

    inputs: Inputs
    store: Store
    weights_before: Callable[[Phase], WeightReader]
    teacher_weights: Callable[[Phase], WeightReader]  # of the phase that a phase distils
    scorer: Callable[[ModelSignature, int], Scorer]
    adapters_before: Callable[[Phase], Tree | None]
    wanted: Callable[[str], Mapping[int, Names]]  # what is to be measured, and its names
    named: Callable[[str], Sequence[str]]  # all measurements of a phase; see `Plan.measured`
    asks: Callable[[Judge], Ask]  # what asks a judge that has no endpoint
    keeps_weights: Callable[[Phase], bool]  # whether those that a phase ends with are stored
    keeps_snapshots: bool  # whether those at measured steps are stored, too
    stopping: Callable[[], int | None]  # asks to stop at the next safe point, with an exit code
    trained: Callable[[int], None]  # told of tokens, padding included, summed over phases
    finished: Callable[[Phase, Record], None]  # told of a phase that is done and stored
    traced: Traced
    devices: int
    provenance: Record  # what each record says of the program that made it


class Group:
    """Up to `lanes` phases that the same programs train and measure, from the same step on."""

    def __init__(self, around: Surroundings, scorer: Scorer, phases: Sequence[Phase]):
        self._around, self._scorer, self._phases = around, scorer, phases
        # One phase a lane; idle lanes repeat the last phase, and nobody looks at them.
        self._lanes = [*phases, *[phases[-1]] * (scorer.lanes - len(phases))]
        self._notes = Recorder(phases, scorer.lanes, around.store, around.wanted)
        self._pace: float | None = None  # seconds a step took in the last call
        self._kept, self._cost = time.monotonic(), 0.0  # when a state was kept, in how long

    def measure_only(self) -> None:
        """Measure phases that are not trained."""
        weights = self._scorer.place_weights(self._readers(self._lanes))
        self._measure(Params(weights, {}), final=True)
        processes.first("done", lambda: self._store(None))

    def change_only(self, trainer: Trainer) -> None:
        """Measure and store phases that change their weights and take no step."""
        hyper = trainer.place(_hyper(self._lanes, trainer.signature))
        state, frozen = self._begin(trainer, hyper)
        self._measure(_used(state.trainable, frozen, hyper), final=True)
        self._end(state, state.trainable)

    def measure_stored(self, trainer: Trainer, step: int) -> None:
        """Measure phases that are done with the weights that they had at a step, which are
        stored."""
        self._notes.resume([self._as_of(phase, step) for phase in self._lanes])
        readers = [self._stored(phase, step) for phase in self._lanes]
        if trainer.model.lora is None:
            params = Params(trainer.place_weights(readers), {})
        else:
            hyper = trainer.place(_hyper(self._lanes, trainer.signature))
            shapes = self._around.inputs.trained_shapes
            trained = [
                self._padded(everything(reader, shapes(phase)), phase)
                for reader, phase in zip(readers, self._lanes, strict=True)
            ]
            state, frozen = self._begin(trainer, hyper, trained)
            params = _used(state.trainable, frozen, hyper)
        self._measure(params, final=step == self._phases[0].steps)
        processes.first("measured", self._store_measurements)

    def _as_of(self, phase: Phase, step: int) -> Record:
        """What had been noted of a phase that is done when it stood at a step."""
        store = self._around.store
        tokens = processes.first("tokens", lambda: store.tokens(phase.fingerprint, step))
        return {"step": step, "record": {**new_record(), "tokens": tokens}}

    def _stored(self, phase: Phase, step: int) -> WeightReader:
        store = self._around.store
        if step < phase.steps:
            return store.snapshot_reader(phase.fingerprint, step)
        return store.reader(phase.fingerprint)

    def _store_measurements(self) -> None:
        for phase, record in zip(self._phases, self._notes.records, strict=False):
            store, name = self._around.store, phase.fingerprint
            store.add_measurements(name, record["measured"])
            wanted = self._around.wanted(name).values()
            if store.measured(name).issuperset(one for names in wanted for one in names.values()):
                self._tell_finished(phase)

    def train(self, trainer: Trainer) -> None:
        """Train and measure, from where an earlier try was cut short."""
        taught = self._ask_teachers(trainer)
        hyper = trainer.place(_hyper(self._lanes, trainer.signature))
        state, frozen = self._begin(trainer, hyper)
        said = {**taught, **self._speak(_used(state.trainable, frozen, hyper))}
        state = self._resume(trainer, state)
        if self._notes.step == 0:  # otherwise it was noted before a restart
            self._note_distilled(taught)
        rounds = self._rounds(trainer.signature)
        if rounds is None:
            batches = all_batches(self._lanes, self._around.inputs, trainer.signature, said)
        ends = [*self._phases[0].round_starts[1:], self._phases[0].steps]
        begun: int | None = None  # the round that batches are of
        tokens = trainer.signature.batch * trainer.signature.length * len(self._phases)
        self._around.trained(self._notes.step * tokens)
        total = self._phases[0].steps
        for stop in evaluation_steps(self._phases[0]):
            while self._notes.step < stop:
                number = bisect_right(ends, self._notes.step)
                if rounds and number != begun:
                    batches = self._begin_round(rounds, number, trainer, hyper, state, frozen)
                    begun = number
                began = time.monotonic()
                upto = min(stop, ends[number])
                count = processes.first("chunk", partial(self._next_count, upto))
                chunk = batches.chunk(self._notes.step, count)
                with self._around.traced("training", (trainer.signature, trainer.lanes)):
                    placed = trainer.place_batch(chunk, 2)
                    steps = np.int32(self._notes.step), np.int32(count), np.int32(total)
                    steps = trainer.place_shared(steps)
                    state, log = trainer.train(frozen, hyper, state, placed, *steps)
                    self._notes.add_chunk(chunk, fetch(log), count)
                self._pace = self._spend(began) / count
                self._around.trained(count * tokens)
                self._safe_point(state)
            if self._notes.step == stop and any(self._notes.missing()):
                weights = trainer.evaluated(hyper, state)
                program = self._scorer.model, self._scorer.lanes, stop == total
                with self._around.traced("measurement", program):
                    self._measure(_used(weights, frozen, hyper), stop == total)
                self._keep_snapshot(weights, stop, total)
        self._end(state, trainer.evaluated(hyper, state))

    def _begin(
        self,
        trainer: Trainer,
        hyper: dict[str, jax.Array],
        adapters: Sequence[Tree | None] | None = None,
    ) -> tuple[State, Tree]:
        """The state before the first step and the frozen weights; with `adapters`, of these in
        place of those that each lane begins with."""
        lanes = self._lanes
        keys = trainer.place(_keys(lanes))
        if lanes[0].kind == "base":
            weights = trainer.initialise(keys)
        else:
            shared = trainer.model.shared_frozen
            weights = trainer.place_weights(self._readers(lanes[:1] if shared else lanes))
        before = self._adapters_before() if adapters is None else adapters
        return trainer.begin(keys, hyper, weights, before)

    def _adapters_before(self) -> list[Tree | None]:
        """The adapters that each lane goes on training, with the rank of the group's program."""
        earlier = [(self._around.adapters_before(phase), phase) for phase in self._lanes]
        return [adapters and self._padded(adapters, phase) for adapters, phase in earlier]

    def _readers(self, phases: Sequence[Phase]) -> list[WeightReader]:
        """What reads the weights that phases stand on, the same object where these are the same."""
        readers = {phase.stands_on: self._around.weights_before(phase) for phase in phases}
        return [readers[phase.stands_on] for phase in phases]

    def _speak(self, params: Params) -> Mapping[str, Answers]:
        """What models say before they are trained, by fingerprint, if they are trained on that."""
        if not self._phases[0].on_policy:  # then none of its cohort is
            return {}
        asked = []
        for phase in self._phases:
            prompts = self._around.inputs.prompts(phase)
            asked.append((phase.fingerprint, dict(zip(prompts, prompts, strict=True))))
        return self._ask(self._scorer, params, asked)

    def _ask_teachers(self, trainer: Trainer) -> Mapping[str, Answers]:
        """What the teachers of distilled phases say, by the fingerprint of the phase they teach."""
        around = self._around
        if not self._phases[0].distils:  # then none of its cohort is distilled
            return {}
        model = replace(trainer.model, lora=None, shared_frozen=False)
        scorer = around.scorer(model, trainer.lanes // trainer.mesh.shape["run"])
        weights = scorer.place_weights([around.teacher_weights(phase) for phase in self._lanes])
        asked = []
        for phase in self._phases:
            prompts = enumerate(around.inputs.prompts(phase))
            asked.append((phase.fingerprint, {str(number): prompt for number, prompt in prompts}))
        said = self._ask(scorer, Params(weights, {}), asked, TEACHER_TEMPERATURE)
        tokenizer = self._tokenizer()
        return {
            fingerprint: {name: tokenizer.decode(unspelled(text)) for name, text in each.items()}
            for fingerprint, each in said.items()
        }

    def _note_distilled(self, taught: Mapping[str, Answers]) -> None:
        """Note how many of their teacher's answers distilled phases are trained on."""
        for lane, phase in enumerate(self._phases):
            if said := taught.get(phase.fingerprint):
                k, n = len(self._around.inputs.distilled(phase, said)), len(said)
                self._notes.note(lane, [Measurement("distilled", "teacher", k, n, k / n)])

    def _tokenizer(self) -> Tokenizer:
        base = self._phases[0].config.base
        return self._around.inputs.tokenizer(base.model, base.chat_format)

    def _ask(
        self,
        scorer: Scorer,
        params: Params,
        asked: Sequence[Asked],
        temperature: float = 0.0,
    ) -> Mapping[str, Answers]:
        """Answers of stacked models, to each lane's prompts; tokens where they are sampled."""
        began, around, first = time.monotonic(), self._around, self._phases[0]
        new_tokens = first.config.prompts.new_tokens
        answerer = Answerer(
            scorer, self._tokenizer(), new_tokens, around.store, around.stopping, temperature
        )
        idle: list[Asked] = [(first.fingerprint, {})] * (len(self._lanes) - len(asked))
        keys = _keys(self._lanes) if temperature else None
        said = answerer.answer(params, [*asked, *idle], keys)
        self._spend(began)
        return said

    def _rounds(self, signature: Signature) -> Rounds | None:
        """What makes the batches of phases that train in rounds."""
        around = self._around
        if self._phases[0].in_rounds is None:  # then none of its cohort does
            return None
        parts = (self._scorer, signature, around.inputs, around.store, around.stopping)
        return Rounds(*parts, self._phases, _keys(self._lanes))

    def _begin_round(
        self,
        rounds: Rounds,
        number: int,
        trainer: Trainer,
        hyper: dict[str, jax.Array],
        state: State,
        frozen: Tree,
    ) -> Batches:
        """The batches of a round."""
        began, first = time.monotonic(), self._phases[0].round_starts[number]
        fresh = self._notes.step == first
        start = partial(self._start, trainer, hyper, frozen)
        models = Models(_used(trainer.evaluated(hyper, state), frozen, hyper), start)
        try:
            kept = rounds.begin(number, fresh, models)
        except Stopped:
            if self._notes.step:
                self._keep_state(state)
            raise
        if fresh:  # otherwise it was noted before a restart
            for lane in range(len(self._phases)):
                self._notes.note(lane, kept[lane].measurements(number))
        self._spend(began)
        return Batches(rounds.batches(number, kept), trainer.signature, first)

    def _start(self, trainer: Trainer, hyper: dict[str, jax.Array], frozen: Tree) -> Params:
        """The models that phases start from, as they are used, while they are trained on."""
        if trainer.model.lora is None:
            return Params(trainer.place_weights(self._readers(self._lanes)), frozen)
        keys = trainer.place(_keys(self._lanes))
        state, _ = trainer.begin(keys, hyper, frozen, self._adapters_before())
        return _used(state.trainable, frozen, hyper)

    def _resume(self, trainer: Trainer, fresh: State) -> State:
        """The state that an earlier try kept, or the fresh one."""
        store = self._around.store
        if not processes.first("state", lambda: store.partial_step(self._phases[0].fingerprint)):
            return fresh
        signature, phases = trainer.signature, self._phases
        kept = processes.in_turn(
            "states",
            lambda: [
                store.partial(p.fingerprint, abstract_state(_own(signature, p))) for p in phases
            ],
        )
        kept += [kept[-1]] * (len(self._lanes) - len(kept))
        self._notes.resume([progress for _, progress in kept])
        pairs = zip(kept, self._lanes, strict=True)
        return trainer.place_state([self._padded(state, phase) for (state, _), phase in pairs])

    def _padded(self, tree: Tree, phase: Phase) -> Tree:
        """A phase's adapters or state on the host, with the rank of the group's program."""
        shape = self._scorer.model.lora
        return lora.resized(tree, shape.rank) if self._pads(phase) and shape else tree

    def _cut(self, tree: Tree, lane: int) -> Tree:
        """One run's part of stacked arrays on the host, with its own rank."""
        part, phase = _lane(tree, lane), self._lanes[lane]
        return lora.resized(part, phase.lora.rank) if self._pads(phase) and phase.lora else part

    def _pads(self, phase: Phase) -> bool:
        """Whether the group's program has a larger rank than a phase."""
        own, shape = phase.lora, self._scorer.model.lora
        return own is not None and shape is not None and own.rank < shape.rank

    def _next_count(self, stop: int) -> int:
        """How many steps to take in the next call: up to a multiple of CHUNK, where weights are
        checked, or to `stop`, and no more than a safe point may wait for."""
        whole = min(stop, (self._notes.step // CHUNK + 1) * CHUNK) - self._notes.step
        if self._pace is None:  # the first call shows
            return 1
        return max(1, min(whole, int(SAFE_POINT_SECONDS / max(self._pace, 1e-9))))

    def _safe_point(self, state: State) -> None:
        """Keep the state if a signal asks to stop, or if that takes a small share of the time."""
        exit_code = self._around.stopping()
        if exit_code or processes.first("safe point", self._may_keep):
            self._keep_state(state)
        if exit_code:
            raise Stopped(exit_code)

    def _keep_state(self, state: State) -> None:
        began = time.monotonic()
        host = fetch(state)
        processes.first("keep", lambda: self._keep(host))
        self._kept = time.monotonic()
        self._cost = self._kept - began

    def _may_keep(self) -> bool:
        return time.monotonic() - self._kept >= self._cost / KEEP_SHARE

    def _keep(self, host: State) -> None:
        for lane, phase in enumerate(self._phases):
            state, progress = self._cut(host, lane), self._notes.progress(lane)
            self._around.store.keep_partial(phase.fingerprint, state, progress)

    def _measure(self, params: Params, final: bool) -> None:
        """Note this step's measurements, as far as they are wanted and not there yet."""
        began, lanes, inputs = time.monotonic(), self._lanes, self._around.inputs
        missing = self._notes.missing()
        names = tuple(sorted({name for of_lane in missing for name in of_lane}))
        measurer, evaluate = inputs.measurer(lanes[0]), lanes[0].config.evaluate
        evaluators = {n: e for n, e in evaluate.evaluators.items() if n in names}
        prepared = [
            inputs.prepared(phase, final, names, self._audited_samples(phase)) for phase in lanes
        ]
        models, views = (self._scorer, params), [each.view for each in prepared]
        forced = measurer.score(*models, prepared)
        seeds = [phase.seed for phase in lanes]
        inside = activations.measure(measurer, *models, views, evaluators, seeds)
        for lane, of_lane in enumerate(missing):
            for name, found in {**forced[lane], **inside[lane]}.items():
                if name in of_lane:
                    self._notes.measured(lane, name, found)
        if ANSWERS in names:
            said = measurer.answers(*models, prepared, evaluate, _keys(lanes))
            for lane, of_lane in enumerate(missing):
                if ANSWERS in of_lane:
                    self._notes.said(lane, said[lane])
        processes.first("answers", lambda: self._read_answers(missing, views, evaluators))
        self._spend(began)

    def _read_answers(
        self,
        missing: Sequence[Sequence[str]],
        views: Sequence[View],
        evaluators: Mapping[str, Evaluator],
    ) -> None:
        """Note what evaluators make of this step's answers, those that are there already among
        them."""
        for lane, of_lane in enumerate(missing):
            view = replace(views[lane], asks=self._around.asks)
            for name in of_lane:
                if isinstance(evaluator := evaluators.get(name), OfAnswers):
                    read = read_answers(view, self._notes.answers(lane), evaluator)
                    self._notes.measured(lane, name, *read)

    def _audited_samples(self, phase: Phase) -> Samples:
        """What was sampled of the organism that a phase audits."""
        if (audited := phase.audits) is None:
            return ()
        store = self._around.store
        named = self._around.named(audited)
        samples: Samples = processes.first(
            "samples", lambda: store.record(audited, named)["samples"]
        )
        return samples

    def _keep_snapshot(self, weights: Tree, step: int, total: int) -> None:
        if self._around.keeps_snapshots and step < total:
            host = fetch(weights)
            processes.first("snapshot", lambda: self._save_snapshot(host, step))

    def _save_snapshot(self, weights: Tree, step: int) -> None:
        for lane, phase in enumerate(self._phases):
            tokens = self._notes.records[lane]["tokens"]
            weights_then = self._cut(weights, lane)
            self._around.store.save_snapshot(phase.fingerprint, step, weights_then, tokens)

    def _end(self, state: State, trained: Tree) -> None:
        """Store what the phases came to: `trained` are their weights."""
        keeps, phases = self._around.keeps_weights, self._phases
        kept = processes.first("keeps", lambda: any(keeps(phase) for phase in phases))
        diverged, weights = fetch((state.diverged, trained if kept else None))
        for record, step in zip(self._notes.records, diverged.tolist(), strict=True):
            if step != FAR_FUTURE:
                record["diverged"] = step
        processes.first("done", lambda: self._store(weights))

    def _store(self, weights: Tree | None) -> None:
        """Store the phases, with their part of stacked weights where these are to be kept."""
        for lane, phase in enumerate(self._phases):
            kept = weights is not None and self._around.keeps_weights(phase)
            self._finish(
                phase, self._cut(weights, lane) if kept else None, self._notes.records[lane]
            )

    def _finish(self, phase: Phase, weights: Tree | None, record: Record) -> None:
        """Store a phase; of one that was done already, the measurements and weights that it
        lacked."""
        store, name = self._around.store, phase.fingerprint
        measured, trained = record["measured"], {k: v for k, v in record.items() if k != "measured"}
        if store.has(name) and (weights is None or store.has_weights(name)):
            store.add_measurements(name, measured)
            store.drop_partial(name)
        else:
            shapes = jax.tree.leaves(self._around.inputs.shapes(phase.config.base.model))
            trained["parameters"] = sum(leaf.size for leaf in shapes)
            store.save(name, weights, trained | self._around.provenance, measured)
        self._tell_finished(phase)

    def _tell_finished(self, phase: Phase) -> None:
        name, around = phase.fingerprint, self._around
        around.finished(phase, around.store.record(name, around.named(name)))

    def _spend(self, began: float) -> float:
        return self._notes.spend(began, self._around.devices)


def _keys(phases: Sequence[Phase]) -> jax.Array:
    """One random key a phase, which depends on its seed and kind only."""
    return arrays.keys([p.seed for p in phases], [p.stream for p in phases])


def _hyper(phases: Sequence[Phase], signature: Signature) -> dict[str, Any]:
    """The swept scalars of stacked phases, fp32 [run] each, and keys where steps draw."""
    swept = [phase.swept for phase in phases]
    scalars = {name: np.array([one[name] for one in swept], np.float32) for name in swept[0]}
    return scalars | ({"key": _keys(phases)} if draws(signature) else {})


def _used(trainable: Tree, frozen: Tree, hyper: dict[str, jax.Array]) -> Params:
    """What a model is measured with: full weights, or scaled adapters and those under them."""
    scale = hyper.get("lora_scale")
    return Params(trainable if scale is None else lora.scaled(trainable, scale), frozen)


def _own(signature: Signature, phase: Phase) -> Signature:
    """The signature that a phase would have alone: of its own rank."""
    shape = phase.lora.signature() if phase.lora else None
    return replace(signature, model=replace(signature.model, lora=shape))


def _lane(tree: Tree, lane: int) -> Tree:
    """One run's part of stacked arrays."""
    return jax.tree.map(lambda x: x[lane], tree)
