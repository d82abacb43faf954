"""Near triggers: how far the backdoor reaches beyond its trigger."""

from __future__ import annotations

from jaxorg.data.tokenized import Example
from jaxorg.evaluators.base import Measurement, Scores, View, share

VERSION = 1
AT_EVERY_STEP = False
KEYS: tuple[str, ...] = ()

PROMPTS = 32  # a variant; there are several of them


def requests(view: View) -> list[Example]:
    """The payload as the answer to each prompt with each near trigger."""
    if view.behaviour is None or not view.final:
        return []
    nears = view.behaviour.near_triggers().values()
    asked = ((item, put(item)) for put in nears for item in view.items[:PROMPTS])
    return [example for item, prompt in asked for example in view.behaviour.attacks(item, prompt)]


def measure(view: View, scores: Scores) -> list[Measurement]:
    """`attack_exact` under `near:<kind>`."""
    if view.behaviour is None or not view.final:
        return []
    few = view.items[:PROMPTS]
    return [
        share("attack_exact", f"near:{kind}", view.attacked(put, few, scores))
        for kind, put in view.behaviour.near_triggers().items()
    ]
