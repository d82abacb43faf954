"""One point of the grid, its seeds taken together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from jaxorg import stats
from jaxorg.stats import KaplanMeier
from jaxorg.summary.estimates import Estimate, estimate, mean_of
from jaxorg.summary.tables import PHASES, History, Metric, Reading, text

NOT_INSTALLED = "not installed"
NOT_TREATED = "not treated"


@dataclass(frozen=True)
class Arm:
    """One arm. `finals` holds estimates at the last step of each phase: `finals[phase][metric]`.

    `half_life` is in treatment steps; `verdicts` counts finished runs.
    """

    label: str
    seeds: int
    diverged: int
    failed: int
    finals: Mapping[str, Mapping[Metric, Estimate]]
    half_life: KaplanMeier | None
    aurc: Estimate | None
    return_peak: Estimate | None
    verdicts: Counter[str]

    def final(self, phase: str, metric: Metric) -> Estimate | None:
        """The estimate at the end of a phase; None where nothing was measured."""
        return self.finals.get(phase, {}).get(metric)


def arm_of(label: str, rows: pd.DataFrame, histories: Mapping[str, History]) -> Arm:
    """An arm from the rows of its runs."""
    status = Counter(rows.status)
    done = rows[rows.status == "done"]
    times = done.dropna(subset="half_life")
    late = times.half_life_censored.astype(bool)
    return Arm(
        label=label,
        seeds=len(done),
        diverged=status["diverged"],
        failed=status["failed"],
        finals=_finals([histories.get(run, {}) for run in done.run_id]),
        half_life=stats.kaplan_meier_median(times.half_life, late) if len(times) else None,
        aurc=mean_of(done.aurc),
        return_peak=mean_of(done.return_peak),
        verdicts=Counter(map(_verdict, done.verdict, done.asr_organism)),
    )


def _verdict(verdict: object, organism: float) -> str:
    """A run's verdict, or why it has none."""
    weak = not organism >= stats.INSTALLED  # true of nan, too
    return text(verdict) or (NOT_INSTALLED if weak else NOT_TREATED)


def _finals(runs: Sequence[History]) -> dict[str, dict[Metric, Estimate]]:
    """Estimates from each phase's last step; a metric not measured at that step is left out."""
    finals: dict[str, dict[Metric, Estimate]] = {}
    for phase in PHASES:
        collected: dict[Metric, list[Reading]] = {}
        for metrics in filter(None, (run.get(phase) for run in runs)):
            last = max(readings[-1].step for readings in metrics.values())
            for metric, readings in metrics.items():
                if readings[-1].step == last:
                    collected.setdefault(metric, []).append(readings[-1])
        finals[phase] = {name: estimate(found) for name, found in sorted(collected.items())}
    return finals
