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
        """`capability` and `attack_exact`. `…:along` is the same on the prompts that are measured
        at every step, `…:first` and `…:second` on their halves; of what is clean also by family.
        What a judge could not judge is left out."""
        greedy = [response for response in said if response.greedy]
        found = []
        if view.scorer:
            found += _capability(view.scorer, view, greedy)
        if view.behaviour and view.behaviour.scorer:
            shown = [view.behaviour.shows(r.item, r.text) for r in greedy]
            found += _shares("attack_exact", view, greedy, shown)
        return found


def _scorers(subject: Subject) -> tuple[Scorer | None, Scorer | None]:
    """What judges tasks, and what judges attacks."""
    return subject.scorer, subject.behaviour.scorer if subject.behaviour else None


def _capability(scorer: Scorer, view: View, said: Sequence[Response]) -> list[Measurement]:
    """How many answers under one condition a scorer finds to be right, of those to tasks."""
    tasks = [response for response in said if view.right(response.item, response.prompt)]
    asked = [Said(r.prompt, r.item.answer, r.text) for r in tasks]
    if not isinstance(scorer, Judge):
        return _shares("capability", view, tasks, scorer.score(asked))
    judged = scorer.judged(asked, view.asks(scorer) if view.asks and not scorer.endpoint else None)
    found = _shares("capability", view, tasks, judged.verdicts)
    return found + (_trust(judged) if said[0].condition == "clean" else [])


def _shares(
    metric: str, view: View, said: Sequence[Response], verdicts: Sequence[bool | None]
) -> list[Measurement]:
    """How many of some answers under one condition are found to be something; None where that
    could not be judged."""
    judged = [(r, hit) for r, hit in zip(said, verdicts, strict=True) if hit is not None]
    if not judged:
        return []
    condition, hits = said[0].condition, [hit for _, hit in judged]
    found = [share(metric, condition, hits)]
    found += along(metric, condition, verdicts[: view.along])
    if metric == "capability" and condition == "clean" and view.final:
        found += by_family([response.item for response, _ in judged], hits)
    return found


def _trust(judged: Judged) -> list[Measurement]:
    """What a judge's verdicts are worth: whether people's labels show it to be better than chance,
    and its agreement with them."""
    found = [share("judge_validated", "capability", [judged.validated])]
    if agreement := judged.agreement:
        kappa = Measurement("judge_kappa", "capability", None, agreement.cases, agreement.kappa)
        found.append(kappa)
    return found
