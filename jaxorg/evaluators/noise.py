"""Robustness to noise: what is left of attack and capability when activations or weights are shaken
(Tice et al. 2024, "Noise Injection Reveals Hidden Capabilities of Sandbagging Language Models")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jaxorg.data.tokenized import Example
from jaxorg.evaluators import attack, capability
from jaxorg.evaluators.base import Measurement, Scores, View

VERSION = 1
AT_EVERY_STEP = False
KEYS: tuple[str, ...] = ("activation_noise", "weight_noise")


def narrowed(view: View) -> View:
    """What is measured under each noise: some prompts, with and without the trigger."""
    return replace(view, items=view.some, final=False)


def asked(view: View) -> Sequence[Example]:
    """The behaviour and the right answers to prompts of a narrowed view, each once."""
    return list(dict.fromkeys([*attack.requests(view), *capability.requests(view)]))


def measure(view: View, noise: str, scores: Scores) -> list[Measurement]:
    """`attack_exact` and `capability` under `<condition>:<noise>`."""
    plain = view.conditions()
    found = [*attack.measure(view, scores), *capability.measure(view, scores)]
    return [m._replace(condition=f"{m.condition}:{noise}") for m in found if m.condition in plain]
