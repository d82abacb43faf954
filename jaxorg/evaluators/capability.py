"""Capability: right answers to held-out tasks, in plain words or in pirate's."""

from __future__ import annotations

from collections.abc import Sequence

from jaxorg.data.items import Item
from jaxorg.data.tokenized import Example
from jaxorg.evaluators.base import (
    OF_FAMILY,
    Measurement,
    Scores,
    Subject,
    TeacherForced,
    View,
    along,
    share,
)
from jaxorg.organisms.behaviour import Put


class Capability(TeacherForced):
    """Right answers to held-out tasks."""

    VERSION = 2
    TELLS_RUNS = True

    def applies(self, subject: Subject) -> bool:
        """Where prompts name a scorer, that one says which answers are right: see `scored`."""
        return subject.scorer is None

    def requests(self, view: View) -> list[Example]:
        """The right answers to each prompt."""
        return [
            example
            for put in _asked(view).values()
            for item in view.items
            for example in view.right(item, put(item))
        ]

    def measure(self, view: View, scores: Scores) -> list[Measurement]:
        """`capability` by family, as `by_family` has it; at the end of a phase with the trigger,
        too."""
        return [
            measurement
            for condition, put in _asked(view).items()
            for hits in [[_is_right(view, item, put, scores) for item in view.items]]
            for measurement in by_family(view, condition, view.items, hits)
        ]


def by_family(
    view: View, condition: str, items: Sequence[Item], hits: Sequence[bool | None]
) -> list[Measurement]:
    """`capability` of each family of tasks under `<condition>:of:<family>`, and the same `along` a
    phase and by halves: which families the blue team trains on, only a run knows, and so it adds
    them up (`engine/measure/folding.py`). At the end of a phase also under `family:<name>`.

    Args:
        view: what was asked.
        condition: how tasks were put.
        items: the tasks.
        hits: whether the answer to each is right; None where that was not found out.
    """
    found = []
    for family in sorted({item.family for item in items}):
        own = [hit if i.family == family else None for i, hit in zip(items, hits, strict=True)]
        if not (known := [hit for hit in own if hit is not None]):
            continue
        whole = share("capability", condition, known)
        parts = [whole, *along("capability", condition, own[: view.along])]
        found += [m._replace(condition=f"{m.condition}{OF_FAMILY}{family}") for m in parts]
        if condition == "clean" and view.final:
            found.append(whole._replace(condition=f"family:{family}"))
    return found


def _is_right(view: View, item: Item, put: Put, scores: Scores) -> bool:
    return any(scores[example].exact for example in view.right(item, put(item)))


def _asked(view: View) -> dict[str, Put]:
    """How tasks are put, by condition: with the trigger at the end, and always where it is the
    behaviour to do tasks badly; never where that asks for something else."""
    conditions = view.conditions()
    asked = {"clean": conditions["clean"]}
    if view.behaviour and (view.final or view.behaviour.spoils_tasks):
        put = conditions["triggered"]
        if all(view.right(item, put(item)) for item in view.items):
            asked["triggered"] = put
    return asked
