"""Capability: right answers to held-out tasks, in plain words or in pirate's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from jaxorg.data.items import Item
from jaxorg.data.tokenized import Example
from jaxorg.evaluators.base import Measurement, Scores, Subject, TeacherForced, View, along, share
from jaxorg.organisms.behaviour import Put


class Capability(TeacherForced):
    """Right answers to held-out tasks."""

    VERSION = 1
    TELLS_RUNS = True

    def applies(self, subject: Subject) -> bool:
        """Where prompts name a scorer, that one says which answers are right: see `scored`."""
        return subject.scorer is None

    def requests(self, view: View) -> list[Example]:
        """The right answers to each prompt."""
        return [
            example
            for put, items in _asked(view).values()
            for item in items
            for example in view.right(item, put(item))
        ]

    def measure(self, view: View, scores: Scores) -> list[Measurement]:
        """`capability`. `clean:along` is the same on the prompts that are measured at every step,
        `clean:first` and `clean:second` on their halves; at the end of a phase also with the
        trigger and by family."""
        hits = {
            name: [any(scores[e].exact for e in view.right(item, put(item))) for item in items]
            for name, (put, items) in _asked(view).items()
        }
        found = [share("capability", name, outcomes) for name, outcomes in hits.items()]
        found += along("capability", "clean", hits["clean"][: view.along])
        return found + (by_family(view.items, hits["clean"]) if view.final else [])


def by_family(items: Sequence[Item], hits: Sequence[bool]) -> list[Measurement]:
    """`capability` of each family of tasks."""
    families: dict[str, list[bool]] = defaultdict(list)
    for item, hit in zip(items, hits, strict=True):
        families[item.family].append(hit)
    return [share("capability", f"family:{name}", some) for name, some in sorted(families.items())]


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
