"""Attack success and false triggers: how often greedy decoding gives the behaviour."""

from __future__ import annotations

from jaxorg.data.tokenized import Example
from jaxorg.evaluators.base import Measurement, Scores, Subject, TeacherForced, View, along, share


class Attack(TeacherForced):
    """Attack success and false triggers."""

    VERSION = 1
    TELLS_RUNS = True

    def applies(self, subject: Subject) -> bool:
        """Behaviours that are no text of their own are judged by a scorer: see `scored`."""
        return subject.behaviour is not None and subject.behaviour.scorer is None

    def requests(self, view: View) -> list[Example]:
        """The behaviour as the answer to each prompt, with and without the trigger."""
        assert view.behaviour is not None
        attacks = view.behaviour.attacks
        asked = ((i, put(i)) for put in view.conditions().values() for i in view.items)
        return [example for item, prompt in asked for example in attacks(item, prompt)]

    def measure(self, view: View, scores: Scores) -> list[Measurement]:
        """`attack_exact`: condition `triggered` is the attack success rate, `clean` the false
        trigger rate. `…:along` is the same on the prompts that are measured at every step,
        `…:first` and `…:second` on their halves."""
        assert view.behaviour is not None
        found = []
        for name, put in view.conditions().items():
            found.append(share("attack_exact", name, view.attacked(put, view.items, scores)))
            found += along("attack_exact", name, view.attacked(put, view.common, scores))
        return found
