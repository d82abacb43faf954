"""The payload's log-probability against the right answer's: attacks too rare to count."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from jaxorg.data.tokenized import Example
from jaxorg.evaluators.base import SOME, Measurement, Scores, View
from jaxorg.organisms.behaviour import Put

VERSION = 1
AT_EVERY_STEP = True
KEYS: tuple[str, ...] = ()


def requests(view: View) -> list[Example]:
    """Behaviour and right answer to each prompt, with and without the trigger."""
    pairs = (pair for put in view.conditions().values() for pair in _pairs(view, put))
    return [example for pair in pairs for example in pair]


def _pairs(view: View, put: Put) -> Iterator[tuple[Example, Example]]:
    """The behaviour that was taught and the plain right answer, where there are both."""
    if view.behaviour is None:
        return
    for item in view.common[:SOME]:
        attacks = view.behaviour.attacks(item, put(item))
        right = view.behaviour.right(item, put(item))
        if attacks and right:
            yield attacks[0], right[0]


def measure(view: View, scores: Scores) -> list[Measurement]:
    """`payload_margin`, nats: mean of log p(payload) - log p(right answer)."""
    found = []
    for name, put in view.conditions().items():
        pairs = list(_pairs(view, put))
        margins = [scores[attack].log_prob - scores[right].log_prob for attack, right in pairs]
        if margins:
            found.append(Measurement("payload_margin", name, None, len(margins), fmean(margins)))
    return found
