"""States of phases in training, kept on disk for a restart."""

from __future__ import annotations

from dataclasses import replace

from jaxorg.engine.arrays import fetch
from jaxorg.engine.cohort import Trainer
from jaxorg.engine.run.lanes import Lanes
from jaxorg.engine.run.recorder import Recorder
from jaxorg.engine.step import State, abstract_state
from jaxorg.planning.phases import Phase
from jaxorg.planning.signature import Signature
from jaxorg.storage.store import Store


class States:
    """The states of a group's phases, each with what had been noted of it by then."""

    def __init__(self, store: Store, lanes: Lanes, notes: Recorder):
        self._store, self._lanes, self._notes = store, lanes, notes

    def resumed(self, trainer: Trainer, fresh: State) -> State:
        """The state that an earlier try kept, or the fresh one."""
        store, phases, every = self._store, self._lanes.phases, self._lanes.every
        if not store.partial_step(phases[0].fingerprint):
            return fresh
        shapes = [abstract_state(_own(trainer.signature, phase)) for phase in phases]
        pairs = zip(phases, shapes, strict=True)
        kept = [store.partial(phase.fingerprint, shape) for phase, shape in pairs]
        kept += [kept[-1]] * (len(every) - len(kept))
        self._notes.resume([progress for _, progress in kept])
        padded = [self._lanes.padded(state, lane) for lane, (state, _) in enumerate(kept)]
        return trainer.place_state(padded)

    def keep(self, state: State) -> None:
        """Keep the state that phases are in."""
        host = fetch(state)
        for lane, phase in enumerate(self._lanes.phases):
            own, progress = self._lanes.cut(host, lane), self._notes.progress(lane)
            self._store.keep_partial(phase.fingerprint, own, progress)


def _own(signature: Signature, phase: Phase) -> Signature:
    """The signature that a phase would have alone: of its own rank."""
    shape = phase.lora.signature() if phase.lora else None
    return replace(signature, model=replace(signature.model, lora=shape))
