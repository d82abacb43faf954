"""What names measurements: everything that determines their rows, and nothing that does not.

A training fingerprint names weights; a measurement fingerprint names what was measured of them at
one step. So another way of measuring makes other rows of the same weights, and trains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxorg.config import content_hash
from jaxorg.evaluators import EVALUATORS_VERSION
from jaxorg.planning.phases import Phase, evaluation_steps

ALONG = {"prompts", "final_prompts"}  # keys of `evaluate` that shape what is measured at any step
NEVER = {"points"}  # that say only when


def measurement_fingerprints(phase: Phase, audited: str | None) -> Mapping[int, str]:
    """The name of each measurement of a phase, by the step after which it is made.

    Args:
        phase: the phase.
        audited: the last measurement of the organism whose answers it audits, if it does.
    """
    evaluate = phase.config.evaluate
    found = {}
    for step in evaluation_steps(phase):
        final = step == phase.steps
        how = evaluate.model_dump(exclude=NEVER) if final else evaluate.model_dump(include=ALONG)
        found[step] = content_hash(
            {
                "training": phase.fingerprint,
                "step": step,
                "final": final,
                "evaluate": how,
                "evaluators": EVALUATORS_VERSION,
                "audited": audited,
            }
        )
    return found
