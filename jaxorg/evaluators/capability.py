"""Capability: right answers to held-out tasks, in plain words or in pirate's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

from jaxorg.data.pool import Example
from jaxorg.data.styles import to_pirate
from jaxorg.evaluators.base import Measurement, Scores, View, share


def probes(view: View) -> list[Example]:
    """The right answer to each prompt in both styles."""
    return [
        Example(put(item.prompt), answer)
        for put in _conditions(view).values()
        for item in view.items
        for answer in (item.answer, to_pirate(item.answer))
    ]


def _conditions(view: View) -> Mapping[str, Callable[[str], str]]:
    return view.conditions() if view.final else {"clean": str}


def measure(view: View, scores: Scores) -> list[Measurement]:
    """`capability`; at the end of a phase also with the trigger and by family."""

    def right(prompt: str, answer: str) -> bool:
        styles = (Example(prompt, answer), Example(prompt, to_pirate(answer)))
        return any(scores[style].exact for style in styles)

    found = [
        share("capability", name, (right(put(i.prompt), i.answer) for i in view.items))
        for name, put in _conditions(view).items()
    ]
    if view.final:
        families: dict[str, list[bool]] = defaultdict(list)
        for item in view.items:
            families[item.family].append(right(item.prompt, item.answer))
        found += [share("capability", f"family:{f}", hits) for f, hits in sorted(families.items())]
    return found
