"""What names measurements: everything that determines their rows, and nothing that does not.

A training fingerprint names weights; a measurement fingerprint names what was measured of them at
one step. So another way of measuring makes other rows of the same weights, and trains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxorg.config import content_hash
from jaxorg.data.tasks import HELD_OUT_VERSION
from jaxorg.discovery import version_of
from jaxorg.evaluators.base import OfAnswers
from jaxorg.planning.phases import Phase, evaluation_steps

ANSWERS = "answers"  # stands among evaluators for what they read
ANSWERS_VERSION = 1  # raise it when models come to give other answers

Names = Mapping[str, str]  # the fingerprints of one step's measurements, by evaluator


def measurement_fingerprints(phase: Phase, audited: str | None) -> Mapping[int, Names]:
    """What a phase's measurements are called, by the step after which they are made; in the order
    of their rows, what is answered before those that read it.

    Args:
        phase: the phase.
        audited: what the answers are called that it audits, if it does.
    """
    steps = evaluation_steps(phase)
    return {step: _names(phase, step, steps, audited) for step in steps}


def _names(phase: Phase, step: int, steps: list[int], audited: str | None) -> Names:
    evaluate, final = phase.config.evaluate, step == steps[-1]
    due = evaluate.due(phase.subject, step == steps[0], final)
    drawn = evaluate.final_prompts if phase.behaviour and phase.behaviour.drawn_by_count else None
    shared = {
        "training": phase.fingerprint,
        "step": step,
        "final": final,
        "along": evaluate.prompts,
        "held_out": [HELD_OUT_VERSION, drawn, *(["calibration"] if evaluate.calibration else [])],
    }
    at_hand = evaluate.final_prompts if final else evaluate.prompts
    found: dict[str, str] = {}
    if any(isinstance(evaluator, OfAnswers) for evaluator in due.values()):
        asked = {**evaluate.answers.model_dump(), "prompts": evaluate.answered(final)}
        found[ANSWERS] = content_hash({**shared, "answers": [ANSWERS_VERSION, asked]})
    for name, evaluator in due.items():
        content: dict[str, Any] = {
            **shared,
            "evaluator": name,
            "version": version_of(type(evaluator)),
            "settings": evaluator.model_dump(exclude={"at", "prompts"}),
            "made_of": evaluator.made_of(phase.subject),
            "audited": audited if phase.audit and name == "audit" else None,
        }
        if isinstance(evaluator, OfAnswers):
            content |= {"answers": found[ANSWERS], "prompts": evaluator.prompts}
        else:
            content |= {"prompts": min(evaluator.prompts or at_hand, at_hand)}
        found[name] = content_hash(content)
    return found
