"""What groups of phases work with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jaxorg.engine.cohort import Scorer
from jaxorg.engine.params import Tree
from jaxorg.engine.run.inputs import Inputs
from jaxorg.engine.run.profile import Traced
from jaxorg.planning.measurements import Names
from jaxorg.planning.phases import Phase
from jaxorg.planning.signature import ModelSignature
from jaxorg.storage.glance import Record
from jaxorg.storage.store import Store
from jaxorg.storage.weight_reader import WeightReader


@dataclass(frozen=True)
class Surroundings:
    """What a group is given by the engine."""

    inputs: Inputs
    store: Store
    weights_before: Callable[[Phase], WeightReader]
    answering_weights: Callable[[Phase], WeightReader]  # of the phase that answers for a phase
    scorer: Callable[[ModelSignature, int], Scorer]
    adapters_before: Callable[[Phase], Tree | None]
    wanted: Callable[[str], Mapping[int, Names]]  # what is to be measured, and its names
    missing: Callable[[Phase], Sequence[int]]  # the steps of a phase that its weights are wanted of
    named: Callable[[str], Sequence[str]]  # all measurements of a phase; see `Plan.measured`
    keeps_weights: Callable[[Phase], bool]  # whether those that a phase ends with are stored
    keeps_snapshots: bool  # whether those at measured steps are stored, too
    stopping: Callable[[], int | None]  # asks to stop at the next safe point, with an exit code
    trained: Callable[[int], None]  # told of tokens, padding included, summed over phases
    finished: Callable[[Phase, Record], None]  # told of a phase that is done and stored
    traced: Traced
    devices: int
    provenance: Record  # what each record says of the program that made it
