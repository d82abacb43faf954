"""Capability: right answers to held-out tasks, in plain words or in pirate's."""

from __future__ import annotations

from collections import defaultdict

from jaxorg.data.items import Item
from jaxorg.data.pool import Example
from jaxorg.data.styles import to_pirate
from jaxorg.evaluators.base import Measurement, Scores, View, share


def probes(view: View) -> list[Example]:
    """The right answer to each prompt in both styles."""
    return [
        Example(prompt, answer)
        for asked in _asked(view).values()
        for prompt, item in asked
        for answer in (item.answer, to_pirate(item.answer))
    ]


def _asked(view: View) -> dict[str, list[tuple[str, Item]]]:
    """Prompts, as they are put, by condition: with the trigger some, and those at the end."""
    asked = {"clean": [(item.prompt, item) for item in view.items]}
    if view.final and view.behaviour:
        put = view.behaviour.triggered
        asked["triggered"] = [(put(item.prompt), item) for item in view.some]
    return asked


def measure(view: View, scores: Scores) -> list[Measurement]:
    """`capability`; at the end of a phase also with the trigger and by family."""

    def right(prompt: str, answer: str) -> bool:
        styles = (Example(prompt, answer), Example(prompt, to_pirate(answer)))
        return any(scores[style].exact for style in styles)

    found = [
        share("capability", name, (right(prompt, item.answer) for prompt, item in asked))
        for name, asked in _asked(view).items()
    ]
    if view.final:
        families: dict[str, list[bool]] = defaultdict(list)
        for item in view.items:
            families[item.family].append(right(item.prompt, item.answer))
        found += [share("capability", f"family:{f}", hits) for f, hits in sorted(families.items())]
    return found
