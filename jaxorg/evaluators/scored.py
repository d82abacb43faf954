"""What scorers say of answers: which are right, and which show a behaviour that is no text.

Greedy answers are judged, as teacher forcing judges greedy decoding. Capability is judged by the
scorer that `prompts` names, attacks by that of an organism whose behaviour is given by examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxorg.evaluators.base import (
    Measurement,
    Moments,
    OfAnswers,
    Response,
    Subject,
    View,
    along,
    share,
)
from jaxorg.evaluators.capability import by_family
from jaxorg.scorers import Said, Scorer
from jaxorg.scorers.judge import Judge, Judged


class Scored(OfAnswers):
    """Capability and attacks, as scorers judge greedy answers."""

    VERSION = 3
    TELLS_RUNS = True

    at: Moments = ("log",)

    def applies(self, subject: Subject) -> bool:
        """Where there is a scorer."""
        return any(_scorers(subject))

    def waits(self, subject: Subject) -> bool:
        """For a judge."""
        return isinstance(subject.scorer, Judge)

    def made_of(self, subject: Subject) -> Any:
        """What the scorers are."""
        return [one and one.identity for one in _scorers(subject)]

    def measure(self, view: View, said: Sequence[Response]) -> list[Measurement]:
        """`capability` by family, as `by_family` has it, and `attack_exact`: `…:along` is the same
        on the prompts that are measured at every step, `…:first` and `…:second` on their halves.
        What a judge could not judge is left out."""
        greedy = [response for response in said if response.greedy]
        found = []
        if view.scorer:
            found += _capability(view.scorer, view, greedy)
        if view.behaviour and view.behaviour.scorer:
            condition = greedy[0].condition
            shown = [view.behaviour.shows(r.item, r.text) for r in greedy]
            found.append(share("attack_exact", condition, shown))
            found += along("attack_exact", condition, shown[: view.along])
        return found


def _scorers(subject: Subject) -> tuple[Scorer | None, Scorer | None]:
    """What judges tasks, and what judges attacks."""
    return subject.scorer, subject.behaviour.scorer if subject.behaviour else None


def _capability(scorer: Scorer, view: View, said: Sequence[Response]) -> list[Measurement]:
    """How many answers under one condition a scorer finds to be right, of those to tasks."""
    tasks = [response for response in said if view.right(response.item, response.prompt)]
    items = [response.item for response in tasks]
    asked = [Said(r.prompt, r.item.reference or r.item.answer, r.text) for r in tasks]
    condition = said[0].condition
    if not isinstance(scorer, Judge):
        return by_family(view, condition, items, scorer.score(asked))
    judged = scorer.judged(asked, view.asks(scorer) if view.asks and not scorer.endpoint else None)
    found = by_family(view, condition, items, judged.verdicts)
    return found + (_trust(judged) if condition == "clean" else [])


def _trust(judged: Judged) -> list[Measurement]:
    """What a judge's verdicts are worth: whether people's labels show it to be better than chance,
    and its agreement with them."""
    found = [share("judge_validated", "capability", [judged.validated])]
    if agreement := judged.agreement:
        kappa = Measurement("judge_kappa", "capability", None, agreement.cases, agreement.kappa)
        found.append(kappa)
    return found
