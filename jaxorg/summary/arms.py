"""One point of the grid, its seeds taken together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import pandas as pd

from jaxorg import stats
from jaxorg.stats import KaplanMeier
from jaxorg.summary.estimates import Estimate, estimate, mean_of, times_of
from jaxorg.summary.judged import JudgeTrust, least, marked, trust_by
from jaxorg.summary.tables import PHASES, History, Metric, Reading, seeds_of, text
from jaxorg.summary.verdicts import verdict_of
from jaxorg.sweepfile.seeds import Seeds

GIVEN_REASONING = ("taught", "truncated", "swapped", "removed")
TEACHER, ROUND = "teacher", "round:"
"""Conditions of notes: of a teacher, and the beginning of those of a round."""


@dataclass(frozen=True)
class Arm:
    """One arm. `finals` holds estimates at the last step of each phase: `finals[phase][metric]`;
    `notes` in the same way what was noted at other steps: of rounds, and of a teacher.

    `control` is its kind, empty for none; `half_life` is in treatment steps; `verdicts` counts
    finished runs; `design` is empty where runs share no seeds; `judge` is what is known of the
    judge of capability, if one judged.
    """

    label: str
    control: str
    seeds: int
    design: str
    diverged: int
    failed: int
    finals: Mapping[str, Mapping[Metric, Estimate]]
    notes: Mapping[str, Mapping[Metric, Estimate]]
    half_life: KaplanMeier | None
    aurc: Estimate | None
    return_peak: Estimate | None
    verdicts: Counter[str]
    judge: JudgeTrust | None

    def final(self, phase: str, metric: Metric) -> Estimate | None:
        """The estimate at the end of a phase; None where nothing was measured."""
        return self.finals.get(phase, {}).get(metric)

    def note(self, phase: str, metric: Metric) -> Estimate | None:
        """What was noted in a phase; None where nothing was."""
        return self.notes.get(phase, {}).get(metric)

    def mark(self, metric: Metric) -> str:
        """What stands beside a figure that a judge decided; empty for others."""
        return marked(metric, self.judge)


def arm_of(label: str, rows: pd.DataFrame, histories: Mapping[str, History]) -> Arm:
    """An arm from the rows of its runs."""
    status = Counter(rows.status)
    done = rows[rows.status == "done"]
    measured = [histories.get(run, {}) for run in done.run_id]
    pooled = partial(_pooled, measured, seeds_of(done))
    return Arm(
        label=label,
        control=text(rows.control.iloc[0]),
        seeds=len(done),
        design=_design(seeds_of(rows)),
        diverged=status["diverged"],
        failed=status["failed"],
        finals=pooled(at_the_end),
        notes=pooled(_noted),
        half_life=times_of(done, "half_life"),
        aurc=mean_of(done, "aurc"),
        return_peak=mean_of(done, "return_peak"),
        verdicts=Counter(map(verdict_of, done.verdict, measured)),
        judge=least([trust_by(run) for run in measured]),
    )


def _design(seeds: Sequence[Seeds]) -> str:
    """`2×4×4`: bases, organisms of each, treatment seeds; empty for runs that share none."""
    if stats.independent(seeds):
        return ""
    organisms = Counter(base for base, _ in {(each.base, each.organism) for each in seeds})
    treatments = {each.treatment for each in seeds}
    return f"{len(organisms)}×{max(organisms.values())}×{len(treatments)}"


Measured: TypeAlias = Mapping[Metric, Sequence[Reading]]
"""One run's readings in one phase."""


def _pooled(
    runs: Sequence[History],
    seeds: Sequence[Seeds],
    choose: Callable[[Measured], Mapping[Metric, Reading]],
) -> dict[str, dict[Metric, Estimate]]:
    """Estimates by phase and metric from one reading a run."""
    pooled: dict[str, dict[Metric, Estimate]] = {}
    for phase in PHASES:
        collected: dict[Metric, list[tuple[Reading, Seeds]]] = {}
        for run, of_run in zip(runs, seeds, strict=True):
            for metric, reading in choose(run.get(phase, {})).items():
                collected.setdefault(metric, []).append((reading, of_run))
        pooled[phase] = {
            metric: estimate(metric[0], found, len(runs))
            for metric, found in sorted(collected.items())
        }
    return pooled


def at_the_end(measured: Measured) -> dict[Metric, Reading]:
    """What was measured at a phase's last step."""
    last = max((readings[-1].step for readings in measured.values()), default=0)
    ends = {metric: readings[-1] for metric, readings in measured.items() if not _is_note(metric)}
    return {metric: reading for metric, reading in ends.items() if reading.step == last}


def _noted(measured: Measured) -> dict[Metric, Reading]:
    """What was noted when a round began, or before the first step; of no prompts, nothing was."""
    notes = {metric: readings[-1] for metric, readings in measured.items() if _is_note(metric)}
    return {m: reading for m, reading in notes.items() if not reading.tally or reading.tally[1]}


def _is_note(metric: Metric) -> bool:
    _, condition = metric
    return condition == TEACHER or condition.startswith(ROUND)
