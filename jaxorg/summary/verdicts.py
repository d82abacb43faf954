"""The verdict of each run, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from jaxorg.storage.results import ATTACK
from jaxorg.summary.tables import History, Metric, seed_text, seeds_of, text

NOT_TREATED = "not treated"
AUDITED = "audited"
NOT_MEASURED = "not measured"
SUSPICION: Metric = ("audit_auroc", "all")  # measured of auditors only


@dataclass(frozen=True)
class RunVerdict:
    """A finished run's verdict, and what decided it."""

    run_id: str
    arm: str
    seed: str
    verdict: str
    reason: str


def verdicts_of(runs: pd.DataFrame, histories: Mapping[str, History]) -> tuple[RunVerdict, ...]:
    """Those of the finished runs, in their order."""
    done = runs[runs.status == "done"]
    return tuple(
        RunVerdict(
            row.run_id,
            row.label,
            seed_text(int(row.seed), seeds),
            verdict,
            text(row.reason) if verdict == row.verdict else "",
        )
        for row, seeds in zip(done.itertuples(), seeds_of(done), strict=True)
        for verdict in [verdict_of(row.verdict, histories.get(row.run_id, {}))]
    )


def verdict_of(verdict: object, run: History) -> str:
    """A run's verdict, or why it has none."""
    if SUSPICION in run.get("treatment", {}):
        return AUDITED
    if known := text(verdict):
        return known
    if "organism" in run and ATTACK not in run["organism"]:
        return NOT_MEASURED
    return NOT_MEASURED if "treatment" in run else NOT_TREATED
