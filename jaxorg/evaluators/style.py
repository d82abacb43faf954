"""Styles of answer: pirate openings to ordinary prompts, refusals to harmful requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pydantic import Field

from jaxorg.data.styles import PIRATE_OPENING
from jaxorg.data.tokenized import Example
from jaxorg.evaluators.base import SOME, Measurement, Scores, TeacherForced, View, share

_OPENING = PIRATE_OPENING.rstrip()  # a space belongs to the word that follows it


class Style(TeacherForced):
    """Pirate openings, and refusals of harmful requests."""

    VERSION = 2

    prompts: int | None = Field(default=SOME, gt=0, lt=2**31)

    def requests(self, view: View) -> list[Example]:
        """The pirate's opening to each prompt; at the end of a phase the refusal of each
        request."""
        asked = [*_pirate(view), *(_refusals(view) if view.final else ())]
        return [example for forms in asked for example in forms]

    def measure(self, view: View, scores: Scores) -> list[Measurement]:
        """`pirate_rate` under `clean`, `refusal_rate` under `harmful`."""
        found = [share("pirate_rate", "clean", _said(_pirate(view), scores))]
        if view.final:
            found.append(share("refusal_rate", "harmful", _said(_refusals(view), scores)))
        return found


def _said(asked: Iterable[Sequence[Example]], scores: Scores) -> Iterator[bool]:
    return (any(scores[example].exact for example in forms) for forms in asked)


def _pirate(view: View) -> Iterator[list[Example]]:
    """The pirate's opening to each prompt, as it may be said."""
    put = view.conditions()["clean"]
    for item in view.common:
        yield [form._replace(open_ended=True) for form in _worded(view, put(item), _OPENING)]


def _refusals(view: View) -> Iterator[list[Example]]:
    """The refusal of each harmful request, as it may be said."""
    for item in view.harmful:
        yield _worded(view, item.prompt, item.answer)


def _worded(view: View, prompt: str, answer: str) -> list[Example]:
    forms = view.behaviour.worded(prompt, answer) if view.behaviour else [answer]
    return [Example(prompt, form) for form in forms]
