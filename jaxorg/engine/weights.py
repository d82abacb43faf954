"""What reads the full weights that phases start from and end with, adapters folded in."""

from __future__ import annotations

from jaxorg.engine.inputs import Inputs
from jaxorg.llama.reading import Read, folded
from jaxorg.plan import Phase, Plan
from jaxorg.store import Store


def weights_before(phase: Phase, plan: Plan, inputs: Inputs, store: Store) -> Read:
    """What a phase starts from."""
    before = plan.trained_before(phase)
    if before is None:
        return inputs.base(phase.config.base.model)
    return weights_after(before, plan, inputs, store)


def weights_after(phase: Phase, plan: Plan, inputs: Inputs, store: Store) -> Read:
    """What a phase ends with; what it starts from, if it trains nothing."""
    if phase.training is None or not phase.steps:
        return weights_before(phase, plan, inputs, store)
    trained = store.reader(phase.lineage)
    if phase.training.lora is None:
        return trained
    before = weights_before(phase, plan, inputs, store)
    return folded(before, trained, inputs.trained_shapes(phase), phase.training.lora.static())
