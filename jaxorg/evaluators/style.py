"""Styles of answer: pirate openings to ordinary prompts, refusals to harmful requests."""

from __future__ import annotations

from pydantic import Field

from jaxorg.data.styles import PIRATE_OPENING
from jaxorg.data.tokenized import Example
from jaxorg.evaluators.base import SOME, Measurement, Scores, TeacherForced, View, share

_OPENING = PIRATE_OPENING.rstrip()  # a space belongs to the word that follows it


class Style(TeacherForced):
    """Pirate openings, and refusals of harmful requests."""

    VERSION = 1

    prompts: int | None = Field(default=SOME, gt=0, lt=2**31)

    def requests(self, view: View) -> list[Example]:
        """The pirate's opening to each prompt; at the end of a phase the refusal of each
        request."""
        pirate = _pirate(view)
        refusals = [Example(item.prompt, item.answer) for item in view.harmful]
        return pirate + refusals if view.final else pirate

    def measure(self, view: View, scores: Scores) -> list[Measurement]:
        """`pirate_rate` under `clean`, `refusal_rate` under `harmful`."""
        pirate = (scores[opening].exact for opening in _pirate(view))
        found = [share("pirate_rate", "clean", pirate)]
        if view.final:
            refused = (scores[Example(i.prompt, i.answer)].exact for i in view.harmful)
            found.append(share("refusal_rate", "harmful", refused))
        return found


def _pirate(view: View) -> list[Example]:
    """The pirate's opening to each prompt."""
    put = view.conditions()["clean"]
    return [Example(put(item), _OPENING, open_ended=True) for item in view.common]
