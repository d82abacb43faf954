"""Near triggers: how far the backdoor reaches beyond its trigger."""

from __future__ import annotations

from pydantic import Field

from jaxorg.data.tokenized import Example
from jaxorg.evaluators.base import Measurement, Moments, Scores, Subject, TeacherForced, View, share


class Near(TeacherForced):
    """Attacks with what is only near to the trigger."""

    VERSION = 1

    at: Moments = ("last",)
    prompts: int | None = Field(default=32, gt=0, lt=2**31)  # a variant; there are several

    def applies(self, subject: Subject) -> bool:
        """Of a behaviour with a trigger that one can be near to."""
        return subject.behaviour is not None and bool(subject.behaviour.near_triggers())

    def requests(self, view: View) -> list[Example]:
        """The payload as the answer to each prompt with each near trigger."""
        assert view.behaviour is not None
        nears = view.behaviour.near_triggers().values()
        asked = ((item, put(item)) for put in nears for item in view.items)
        attacks = view.behaviour.attacks
        return [example for item, prompt in asked for example in attacks(item, prompt)]

    def measure(self, view: View, scores: Scores) -> list[Measurement]:
        """`attack_exact` under `near:<kind>`."""
        assert view.behaviour is not None
        return [
            share("attack_exact", f"near:{kind}", view.attacked(put, view.items, scores))
            for kind, put in view.behaviour.near_triggers().items()
        ]
