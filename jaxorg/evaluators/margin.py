"""The payload's log-probability against the right answer's: attacks too rare to count."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from pydantic import Field

from jaxorg.data.tokenized import Example
from jaxorg.evaluators.base import SOME, Measurement, Scores, Subject, TeacherForced, View
from jaxorg.organisms.behaviour import Put


class Margin(TeacherForced):
    """The payload against the right answer."""

    VERSION = 1

    prompts: int | None = Field(default=SOME, gt=0, lt=2**31)

    def applies(self, subject: Subject) -> bool:
        """Of a behaviour that is text."""
        return subject.behaviour is not None and subject.behaviour.scorer is None

    def requests(self, view: View) -> list[Example]:
        """Behaviour and right answer to each prompt, with and without the trigger."""
        pairs = (pair for put in view.conditions().values() for pair in _pairs(view, put))
        return [example for pair in pairs for example in pair]

    def measure(self, view: View, scores: Scores) -> list[Measurement]:
        """`payload_margin`, nats: mean of log p(payload) - log p(right answer)."""
        found = []
        for name, put in view.conditions().items():
            pairs = list(_pairs(view, put))
            margins = [scores[attack].log_prob - scores[right].log_prob for attack, right in pairs]
            if margins:
                mean = fmean(margins)
                found.append(Measurement("payload_margin", name, None, len(margins), mean))
        return found


def _pairs(view: View, put: Put) -> Iterator[tuple[Example, Example]]:
    """The behaviour that was taught and the plain right answer, where there are both."""
    assert view.behaviour is not None
    for item in view.common:
        attacks = view.behaviour.attacks(item, put(item))
        right = view.behaviour.right(item, put(item))
        if attacks and right:
            yield attacks[0], right[0]
