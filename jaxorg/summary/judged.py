"""What a judge's verdicts are worth, where a judge says which answers are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxorg.storage.results import CAPABILITY
from jaxorg.summary.tables import History, Metric

VALIDATED: Metric = ("judge_validated", "capability")
KAPPA: Metric = ("judge_kappa", "capability")
Reported = tuple[float, int]
"""A value, and what it was measured on."""


class JudgeTrust(NamedTuple):
    """Whether people's labels show the judge of capability to be better than chance, and Cohen's
    kappa of its agreement with them; None without labels."""

    validated: bool
    kappa: float | None = None
    labels: int = 0

    @property
    def mark(self) -> str:
        """What stands beside a capability that was judged."""
        return "judge" if self.validated else "unvalidated judge"

    @property
    def sentence(self) -> str:
        """What the mark means, for below a table."""
        found = "" if self.kappa is None else f" (kappa {self.kappa:.2f}, {self.labels} labels)"
        if self.validated:
            return f"Judge: a model judged capability; it agrees with people's labels{found}"
        why = f"its agreement with people's labels{found} is not shown to be better than chance"
        if self.kappa is None:
            why = "it was not compared with people's labels; give prompts.scorer.labels"
        return f"Unvalidated judge: a model judged capability, and {why}"


def marked(metric: Metric, trust: JudgeTrust | None) -> str:
    """The mark of a figure that a judge decided; empty for others."""
    return trust.mark if trust and metric[0] == CAPABILITY[0] else ""


def trust_of(rows: Sequence[Mapping[str, Any]]) -> JudgeTrust | None:
    """What is known of a judge by rows of `evals`; None where no judge judged."""
    named = [((row["metric"], row["condition"]), row) for row in rows]
    said = {m: (row["value"], row["n"]) for m, row in named if m in (VALIDATED, KAPPA)}
    return _trust(said)


def trust_by(measured: History) -> JudgeTrust | None:
    """The same by a run's readings."""
    last = [
        {metric: (found[-1].value, found[-1].n) for metric, found in phase.items()}
        for phase in measured.values()
    ]
    return next(filter(None, map(_trust, last)), None)


def least(trusts: Sequence[JudgeTrust | None]) -> JudgeTrust | None:
    """What may be said of several runs at once."""
    return min(filter(None, trusts), default=None, key=lambda one: (one.validated, one.labels))


def sentences(trusts: Sequence[JudgeTrust | None]) -> list[str]:
    """What the marks of a table mean, each once."""
    return list(dict.fromkeys(trust.sentence for trust in trusts if trust))


def _trust(last: Mapping[Metric, Reported]) -> JudgeTrust | None:
    if VALIDATED not in last:
        return None
    kappa, labels = last.get(KAPPA, (None, 0))
    return JudgeTrust(last[VALIDATED][0] == 1, kappa, labels)
