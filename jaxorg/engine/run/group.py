"""Brings a group of phases from their parents to done, side by side: train, measure, store."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import jax
import numpy as np

from jaxorg.distributed import processes
from jaxorg.distributed.interrupt import Stopped
from jaxorg.engine.arrays import fetch
from jaxorg.engine.cohort import Scorer, Trainer
from jaxorg.engine.params import Params, Tree
from jaxorg.engine.run.answers import Answerer, KeyedPrompts, come_to_an_end
from jaxorg.engine.run.clock import Clock
from jaxorg.engine.run.inputs import Answers
from jaxorg.engine.run.lanes import Lanes
from jaxorg.engine.run.measuring import Measuring
from jaxorg.engine.run.recorder import Recorder, new_record
from jaxorg.engine.run.states import States
from jaxorg.engine.run.surroundings import Surroundings
from jaxorg.engine.step import FAR_FUTURE, State
from jaxorg.engine.train.batches import Batches, all_batches
from jaxorg.engine.train.rounds import Models, Rounds
from jaxorg.evaluators import Measurement
from jaxorg.llama import lora
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.planning.phases import Phase, evaluation_steps
from jaxorg.planning.signature import Signature
from jaxorg.storage.glance import Record
from jaxorg.storage.weight_reader import WeightReader, everything

TEACHER_TEMPERATURE = 1.0  # organisms are distilled from samples


class Group:
    """Up to `lanes` phases that the same programs train and measure, from the same step on."""

    def __init__(self, around: Surroundings, scorer: Scorer, phases: Sequence[Phase]):
        self._around, self._scorer, self._phases = around, scorer, phases
        self._lanes = Lanes(phases, scorer)
        self._notes = Recorder(phases, scorer.lanes, around.store, around.wanted)
        self._measuring = Measuring(around, scorer, self._lanes, self._notes)
        self._states = States(around.store, self._lanes, self._notes)
        self._clock = Clock()

    def measure_only(self) -> None:
        """Measure phases that are not trained."""
        weights = self._scorer.place_weights(self._readers(self._lanes.every))
        self._measuring.measure(Params(weights, {}), final=True)
        processes.first("done", lambda: self._store(None))

    def change_only(self, trainer: Trainer) -> None:
        """Measure and store phases that change their weights and take no step."""
        hyper = trainer.place(self._lanes.hyper(trainer.signature))
        state, frozen = self._begin(trainer, hyper)
        self._measuring.measure(_used(state.trainable, frozen, hyper), final=True)
        self._end(state, state.trainable)

    def measure_stored(self, trainer: Trainer, step: int) -> None:
        """Measure phases that are done with the weights that they had at a step, which are
        stored."""
        phases = self._lanes.every
        self._notes.resume([self._as_of(phase, step) for phase in phases])
        readers = [self._stored(phase, step) for phase in phases]
        if trainer.model.lora is None:
            params = Params(trainer.place_weights(readers), {})
        else:
            hyper = trainer.place(self._lanes.hyper(trainer.signature))
            shapes = self._around.inputs.trained_shapes
            trained = [
                self._lanes.padded(everything(reader, shapes(phases[lane])), lane)
                for lane, reader in enumerate(readers)
            ]
            state, frozen = self._begin(trainer, hyper, trained)
            params = _used(state.trainable, frozen, hyper)
        self._measuring.measure(params, final=step == self._phases[0].steps)
        processes.first("measured", self._store_measurements)

    def _as_of(self, phase: Phase, step: int) -> Record:
        """What had been noted of a phase that is done when it stood at a step."""
        tokens = self._around.store.tokens(phase.fingerprint, step)
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
            if not self._around.missing(phase):
                self._tell_finished(phase)

    def train(self, trainer: Trainer) -> None:
        """Train and measure, from where an earlier try was cut short."""
        told = self._ask_others(trainer)
        hyper = trainer.place(self._lanes.hyper(trainer.signature))
        state, frozen = self._begin(trainer, hyper)
        said = {**told, **self._speak(_used(state.trainable, frozen, hyper))}
        state = self._states.resumed(trainer, state)
        if self._notes.step == 0:  # otherwise it was noted before a restart
            self._note_teachers(told)
        rounds = self._rounds(trainer.signature)
        if rounds is None:
            batches = all_batches(self._lanes.every, self._around.inputs, trainer.signature, said)
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
                count = processes.first(
                    "chunk", partial(self._clock.next_count, self._notes.step, upto)
                )
                chunk = batches.chunk(self._notes.step, count)
                with self._around.traced("training", (trainer.signature, trainer.lanes)):
                    placed = trainer.place_rows(chunk, 2)
                    steps = np.int32(self._notes.step), np.int32(count), np.int32(total)
                    steps = trainer.place_shared(steps)
                    state, log = trainer.train(frozen, hyper, state, placed, *steps)
                    self._notes.add_chunk(chunk, fetch(log), count)
                self._clock.trained(self._spend(began), count)
                self._around.trained(count * tokens)
                self._safe_point(state)
            if self._notes.step == stop and any(self._notes.missing()):
                weights = trainer.evaluated(hyper, state)
                program = self._scorer.model, self._scorer.lanes, stop == total
                with self._around.traced("measurement", program):
                    self._measuring.measure(_used(weights, frozen, hyper), stop == total)
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
        phases, keys = self._lanes.every, trainer.place(self._lanes.keys)
        if phases[0].kind == "base":
            weights = trainer.initialise(keys)
        else:
            shared = trainer.model.shared_frozen
            weights = trainer.place_weights(self._readers(phases[:1] if shared else phases))
        before = self._adapters_before() if adapters is None else adapters
        return trainer.begin(keys, hyper, weights, before)

    def _adapters_before(self) -> list[Tree | None]:
        """The adapters that each lane goes on training, with the rank of the group's program."""
        earlier = enumerate(map(self._around.adapters_before, self._lanes.every))
        return [adapters and self._lanes.padded(adapters, lane) for lane, adapters in earlier]

    def _readers(self, phases: Sequence[Phase]) -> list[WeightReader]:
        """What reads the weights that phases stand on, the same object where these are the same."""
        readers = {phase.stands_on: self._around.weights_before(phase) for phase in phases}
        return [readers[phase.stands_on] for phase in phases]

    def _speak(self, params: Params) -> Mapping[str, Answers]:
        """What models say before they are trained, by fingerprint, if they are trained on that."""
        if not self._phases[0].on_policy:  # then none of its cohort is
            return {}
        return self._ask(self._scorer, params, self._questions())

    def _questions(self) -> list[KeyedPrompts]:
        """The prompts of each phase, which are answered greedily."""
        found: list[KeyedPrompts] = []
        for phase in self._phases:
            prompts = self._around.inputs.prompts(phase)
            found.append((phase.fingerprint, dict(zip(prompts, prompts, strict=True))))
        return found

    def _ask_others(self, trainer: Trainer) -> Mapping[str, Answers]:
        """What the models of other phases answer for phases, by the fingerprint of these: greedily,
        but of distilled ones samples, again where these cannot be trained on."""
        around = self._around
        if not self._phases[0].answered_by:  # then none of its cohort is
            return {}
        model = replace(trainer.model, lora=None, shared_frozen=False)
        scorer = around.scorer(model, trainer.lanes // trainer.mesh.shape["run"])
        weights = scorer.place_weights(
            [around.answering_weights(phase) for phase in self._lanes.every]
        )
        params = Params(weights, {})
        if not self._phases[0].distils:
            return self._ask(scorer, params, self._questions())
        heard: dict[str, Answers] = {phase.fingerprint: {} for phase in self._phases}
        tokenizer = self._tokenizer()
        while True:
            asked = [
                (phase.fingerprint, around.inputs.to_ask(phase, heard[phase.fingerprint]))
                for phase in self._phases
            ]
            if not any(prompts for _, prompts in asked):
                return heard
            said = self._ask(scorer, params, asked, TEACHER_TEMPERATURE)
            heard = {
                name: {number: come_to_an_end(tokenizer, text) for number, text in each.items()}
                for name, each in said.items()
            }

    def _note_teachers(self, told: Mapping[str, Answers]) -> None:
        """Note to how many prompts of a distilled phase its teacher gave an answer to train on, how
        many of these are other ones than plain, and how many of those that another model gives are
        right."""
        inputs = self._around.inputs
        for lane, phase in enumerate(self._phases):
            noted: dict[str, list[bool]] = {}
            if phase.distils:
                rows = inputs.distilled(phase, told[phase.fingerprint])
                noted["distilled"] = [row.kept is not None for row in rows]
                noted["distilled_differs"] = [row.differs for row in rows if row.kept]
            if phase.supervisor and (right := inputs.supervised_right(phase)):
                noted["teacher_capability"] = right
            for metric, outcomes in noted.items():
                k, n = sum(outcomes), len(outcomes)
                found = Measurement(metric, "teacher", k, n, k / n if n else 0.0)
                self._notes.note(lane, [found])

    def _tokenizer(self) -> Tokenizer:
        base = self._phases[0].config.base
        return self._around.inputs.tokenizer(base.model, base.chat_format)

    def _ask(
        self,
        scorer: Scorer,
        params: Params,
        asked: Sequence[KeyedPrompts],
        temperature: float = 0.0,
    ) -> Mapping[str, Answers]:
        """Answers of stacked models, to each lane's prompts; tokens where they are sampled."""
        began, around, first = time.monotonic(), self._around, self._phases[0]
        new_tokens = first.config.prompts.new_tokens
        answerer = Answerer(
            scorer, self._tokenizer(), new_tokens, around.store, around.stopping, temperature
        )
        idle: list[KeyedPrompts] = [(first.fingerprint, {})] * (scorer.lanes - len(asked))
        keys = self._lanes.keys if temperature else None
        said = answerer.answer(params, [*asked, *idle], keys)
        self._spend(began)
        return said

    def _rounds(self, signature: Signature) -> Rounds | None:
        """What makes the batches of phases that train in rounds."""
        around = self._around
        if self._phases[0].in_rounds is None:  # then none of its cohort does
            return None
        parts = (self._scorer, signature, around.inputs, around.store, around.stopping)
        return Rounds(*parts, self._phases, self._lanes.keys)

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
            return Params(trainer.place_weights(self._readers(self._lanes.every)), frozen)
        keys = trainer.place(self._lanes.keys)
        state, _ = trainer.begin(keys, hyper, frozen, self._adapters_before())
        return _used(state.trainable, frozen, hyper)

    def _safe_point(self, state: State) -> None:
        """Keep the state if a signal asks to stop, or if that takes a small share of the time."""
        exit_code = self._around.stopping()
        if exit_code or processes.first("safe point", self._clock.may_keep):
            self._keep_state(state)
        if exit_code:
            raise Stopped(exit_code)

    def _keep_state(self, state: State) -> None:
        with self._clock.keeping():
            self._states.keep(state)

    def _keep_snapshot(self, weights: Tree, step: int, total: int) -> None:
        if self._around.keeps_snapshots and step < total:
            host = fetch(weights)
            for lane, phase in enumerate(self._phases):
                tokens = self._notes.records[lane]["tokens"]
                own = self._lanes.cut(host, lane)
                self._around.store.save_snapshot(phase.fingerprint, step, own, tokens)

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
                phase, self._lanes.cut(weights, lane) if kept else None, self._notes.records[lane]
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


def _used(trainable: Tree, frozen: Tree, hyper: dict[str, jax.Array]) -> Params:
    """What a model is measured with: full weights, or scaled adapters and those under them."""
    scale = hyper.get("lora_scale")
    return Params(trainable if scale is None else lora.scaled(trainable, scale), frozen)
