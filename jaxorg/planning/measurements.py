"""What names measurements: everything that determines their rows, and nothing that does not.

A training fingerprint names weights; a measurement fingerprint names what was measured of them at
one step. So another way of measuring makes other rows of the same weights, and trains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxorg.config import content_hash
from jaxorg.evaluators import EVALUATORS
from jaxorg.planning.phases import Phase, evaluation_steps

Names = Mapping[str, str]  # the fingerprints of one step's measurements, by evaluator


def measurement_fingerprints(phase: Phase, audited: str | None) -> Mapping[int, Names]:
    """What a phase's measurements are called, by the step after which they are made.

    Args:
        phase: the phase.
        audited: what the answers are called that it audits, if it does.
    """
    steps = evaluation_steps(phase)
    return {step: _names(phase, step, step == steps[-1], audited) for step in steps}


def _names(phase: Phase, step: int, final: bool, audited: str | None) -> Names:
    evaluate = phase.config.evaluate
    shared = {
        "training": phase.fingerprint,
        "step": step,
        "final": final,
        "prompts": [evaluate.prompts, evaluate.final_prompts],
    }
    return {
        name: content_hash(
            {
                **shared,
                "evaluator": name,
                "version": evaluator.VERSION,
                "settings": evaluate.model_dump(include=set(evaluator.KEYS)),
                "audited": audited if name == "audit" else None,
            }
        )
        for name, evaluator in EVALUATORS.items()
        if final or evaluator.AT_EVERY_STEP
    }
