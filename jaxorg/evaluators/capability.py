"""Capability: right answers to held-out tasks, in plain words or in pirate's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from jaxorg.data.items import Item
from jaxorg.data.tokenized import Example
from jaxorg.evaluators.base import Measurement, Scores, View, along, share
from jaxorg.organisms.behaviour import Put

VERSION = 1
AT_EVERY_STEP = True
KEYS: tuple[str, ...] = ()


def requests(view: View) -> list[Example]:
    """The right answers to each prompt."""
    return [
        example
        for put, items in _asked(view).values()
        for item in items
        for example in view.right(item, put(item))
    ]


def _asked(view: View) -> dict[str, tuple[Put, Sequence[Item]]]:
    """How which tasks are put, by condition. With the trigger: some, at the end; all and always
    where it is the behaviour to do tasks badly."""
    conditions = view.conditions()
    asked = {"clean": (conditions["clean"], view.items)}
    if view.behaviour and (view.final or view.behaviour.spoils_tasks):
        items = view.items if view.behaviour.spoils_tasks else view.some
        put = conditions["triggered"]
        if all(view.right(item, put(item)) for item in items):
            asked["triggered"] = (put, items)
    return asked


def measure(view: View, scores: Scores) -> list[Measurement]:
    """`capability`. `clean:along` is the same on the prompts that are measured at every step,
    `clean:first` and `clean:second` on their halves; at the end of a phase also with the trigger
    and by family."""
    hits = {
        name: [any(scores[e].exact for e in view.right(item, put(item))) for item in items]
        for name, (put, items) in _asked(view).items()
    }
    found = [share("capability", name, outcomes) for name, outcomes in hits.items()]
    found += along("capability", "clean", hits["clean"][: view.along])
    if view.final:
        families: dict[str, list[bool]] = defaultdict(list)
        for item, hit in zip(view.items, hits["clean"], strict=True):
            families[item.family].append(hit)
        found += [share("capability", f"family:{f}", some) for f, some in sorted(families.items())]
    return found
