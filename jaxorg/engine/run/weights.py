"""What reads the weights that phases start from and end with, adapters folded in."""

from __future__ import annotations

from jaxorg.engine.params import Tree
from jaxorg.engine.run.inputs import Inputs
from jaxorg.llama.lora import folded
from jaxorg.planning.phases import Phase
from jaxorg.planning.plan import Plan
from jaxorg.storage.store import Store
from jaxorg.storage.weight_reader import WeightReader, everything


def weights_before(phase: Phase, plan: Plan, inputs: Inputs, store: Store) -> WeightReader:
    """The full weights that a phase starts from; those under adapters that it continues.

    Args:
        phase: whose.
        plan: the phases before it.
        inputs: reads the base.
        store: reads phases that are done.
    """
    below = plan.below(phase)
    if below is None:
        return inputs.base(phase.config.base.model)
    return weights_after(below, plan, inputs, store)


def adapters_before(phase: Phase, inputs: Inputs, store: Store) -> Tree | None:
    """The adapters that a phase continues, if any."""
    if phase.continues is None:
        return None
    return everything(store.reader(phase.continues), inputs.trained_shapes(phase))


def weights_after(phase: Phase, plan: Plan, inputs: Inputs, store: Store) -> WeightReader:
    """The full weights that a phase ends with; what it starts from, if it trains nothing.

    Args:
        phase: whose.
        plan: the phases before it.
        inputs: reads the base.
        store: reads phases that are done.
    """
    if phase.brought:
        return inputs.brought(phase.config.base.model, phase.brought)
    if not phase.changes:
        return weights_before(phase, plan, inputs, store)
    trained = store.reader(phase.fingerprint)
    if phase.lora is None:
        return trained
    before = weights_before(phase, plan, inputs, store)
    return folded(before, trained, inputs.trained_shapes(phase), phase.lora.scale)
