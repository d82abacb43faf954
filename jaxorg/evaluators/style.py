"""Styles of answer: pirate openings to ordinary prompts, refusals to harmful requests."""

from __future__ import annotations

from jaxorg.data.styles import PIRATE_OPENING
from jaxorg.data.tokenized import Example
from jaxorg.evaluators.base import SOME, Measurement, Scores, View, share

VERSION = 1
AT_EVERY_STEP = True
KEYS: tuple[str, ...] = ()

_OPENING = PIRATE_OPENING.rstrip()  # a space belongs to the word that follows it


def _pirate(view: View) -> list[Example]:
    """The pirate's opening to each prompt."""
    put = view.conditions()["clean"]
    return [Example(put(item), _OPENING, open_ended=True) for item in view.common[:SOME]]


def requests(view: View) -> list[Example]:
    """The pirate's opening to each prompt; at the end of a phase the refusal of each request."""
    pirate = _pirate(view)
    refusals = [Example(item.prompt, item.answer) for item in view.harmful]
    return pirate + refusals if view.final else pirate


def measure(view: View, scores: Scores) -> list[Measurement]:
    """`pirate_rate` under `clean`, `refusal_rate` under `harmful`."""
    pirate = (scores[opening].exact for opening in _pirate(view))
    found = [share("pirate_rate", "clean", pirate)]
    if view.final:
        refused = (scores[Example(i.prompt, i.answer)].exact for i in view.harmful)
        found.append(share("refusal_rate", "harmful", refused))
    return found
