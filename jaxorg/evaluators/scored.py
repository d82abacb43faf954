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

    VERSION = 1

    at: Moments = ("log",)

    def applies(self, subject: Subject) -> bool:
        """Where there is a scorer."""
        return any(_scorers(subject))

    def made_of(self, subject: Subject) -> Any:
        """What the scorers are."""
        return [one and one.identity for one in _scorers(subject)]

    def measure(self, view: View, said: Sequence[Response]) -> list[Measurement]:
        """`capability` and `attack_scored`. `…:along` is the same on the prompts that are measured
        at every step, `…:first` and `…:second` on their halves; of what is clean also by family.
        What a judge could not judge is left out."""
        greedy = [response for response in said if response.greedy]
        of_tasks, of_attacks = _scorers(Subject(view.behaviour, view.scorer, view.audit))
        found = []
        if of_tasks:
            found += _shares("capability", of_tasks, view, greedy)
        if of_attacks:
            found += _shares("attack_scored", of_attacks, view, greedy)
        return found


def _scorers(subject: Subject) -> tuple[Scorer | None, Scorer | None]:
    """What judges tasks, and what judges attacks."""
    return subject.scorer, subject.behaviour.scorer if subject.behaviour else None


def _shares(metric: str, scorer: Scorer, view: View, said: Sequence[Response]) -> list[Measurement]:
    """How many answers under one condition a scorer finds to be right."""
    condition = said[0].condition
    asked = [Said(r.prompt, r.item.answer, r.text) for r in said]
    if isinstance(scorer, Judge):
        whole = scorer.judged(asked)
        verdicts, trust = whole.verdicts, _trust(metric, whole)
    else:
        verdicts, trust = scorer.score(asked), []
    judged = [(r.item, hit) for r, hit in zip(said, verdicts, strict=True) if hit is not None]
    if not judged:
        return trust
    common = [hit for hit in verdicts[: view.along] if hit is not None]
    hits = [hit for _, hit in judged]
    found = [share(metric, condition, hits)]
    found += along(metric, condition, common) if common else []
    if metric == "capability" and condition == "clean" and view.final:
        found += by_family([item for item, _ in judged], hits)
    return found + (trust if condition == "clean" else [])


def _trust(metric: str, judged: Judged) -> list[Measurement]:
    """What a judge's verdicts are worth: whether people's labels show it to be better than chance,
    and its agreement with them."""
    found = [share("judge_validated", metric, [judged.validated])]
    if agreement := judged.agreement:
        found.append(Measurement("judge_kappa", metric, None, agreement.cases, agreement.kappa))
    return found
