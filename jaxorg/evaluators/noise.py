"""Robustness to noise: what is left of attack and capability when activations or weights are shaken
(Tice et al. 2024, "Noise Injection Reveals Hidden Capabilities of Sandbagging Language Models")."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, model_validator

from jaxorg.config import misfit
from jaxorg.data.tokenized import Example
from jaxorg.evaluators.attack import Attack
from jaxorg.evaluators.base import (
    OF_FAMILY,
    SOME,
    Measurement,
    Scores,
    Subject,
    TeacherForced,
    UnderNoise,
    View,
)
from jaxorg.evaluators.capability import Capability

_READ: tuple[TeacherForced, ...] = (Attack(), Capability())


class Noise(UnderNoise):
    """Attack and capability under noise."""

    VERSION = (3, Attack.VERSION, Capability.VERSION)
    ON = False

    prompts: int | None = Field(default=SOME, gt=0, lt=2**31)

    @model_validator(mode="after")
    def _some_noise(self) -> Noise:
        if not (self.activations or self.weights):
            raise ValueError("give it activations or weights, scales of noise; or leave it out")
        for key in ("activations", "weights"):
            scales = list(getattr(self, key))
            if len(set(scales)) < len(scales):
                raise misfit(key, scales, "give different scales")
        return self

    def applies(self, subject: Subject) -> bool:
        """Of figures that are read without generating."""
        return any(each.applies(subject) for each in _READ)

    def requests(self, view: View) -> list[Example]:
        """The behaviour and the right answers to prompts, each once."""
        narrow = _narrowed(view)
        return list(dict.fromkeys(r for each in _read(view) for r in each.requests(narrow)))

    def measure(self, view: View, noise: str, scores: Scores) -> list[Measurement]:
        """`attack_exact` and `capability` under `<condition>:<noise>`, the latter by family."""
        narrow, plain = _narrowed(view), view.conditions()
        found = []
        for each in (m for evaluator in _read(view) for m in evaluator.measure(narrow, scores)):
            condition, of, family = each.condition.partition(OF_FAMILY)
            if condition in plain:
                found.append(each._replace(condition=f"{condition}:{noise}{of}{family}"))
        return found


def _read(view: View) -> list[TeacherForced]:
    """The figures that there are."""
    subject = Subject(view.behaviour, view.scorer, view.audit)
    return [each for each in _READ if each.applies(subject)]


def _narrowed(view: View) -> View:
    """What is measured under each noise: with and without the trigger, and no more."""
    return replace(view, final=False)
