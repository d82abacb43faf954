"""The attack rate of an arm over the steps of a phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from jaxorg.storage.results import ATTACK_ALONG
from jaxorg.summary.estimates import Estimate, estimate
from jaxorg.summary.tables import PHASES, History, Reading, seeds_of
from jaxorg.sweepfile.seeds import Seeds


@dataclass(frozen=True)
class Curve:
    """The attack rate of one arm over the steps of one phase, on the same prompts at each; step 0
    is the phase before."""

    arm: str
    group: str
    steps: tuple[int, ...]
    estimates: tuple[Estimate, ...]
    seeds: tuple[tuple[tuple[int, float], ...], ...]


def curve(
    label: str, rows: pd.DataFrame, phase: str, histories: Mapping[str, History]
) -> Curve | None:
    """The attack curve of an arm, or None where the phase was not run.

    Args:
        label: the arm's name.
        rows: its runs, from the table of runs.
        phase: whose steps.
        histories: readings by run id.
    """
    runs = [
        (line, seeds)
        for run, seeds in zip(rows.run_id, seeds_of(rows), strict=True)
        if (line := _line(histories.get(run, {}), phase))
    ]
    lines = [line for line, _ in runs]
    by_step: dict[int, list[tuple[Reading, Seeds]]] = {}
    for line, seeds in runs:
        for reading in line:
            by_step.setdefault(reading.step, []).append((reading, seeds))
    steps = tuple(sorted(by_step))
    return (
        Curve(
            arm=label,
            group=rows.group.iloc[0],
            steps=steps,
            estimates=tuple(estimate(ATTACK_ALONG[0], by_step[step], len(runs)) for step in steps),
            seeds=tuple(tuple((reading.step, reading.value) for reading in line) for line in lines),
        )
        if lines
        else None
    )


def _line(phases: History, phase: str) -> list[Reading]:
    """One run's attack rate over a phase. Step 0 is stored with the phase before, as its last."""
    line = list(phases.get(phase, {}).get(ATTACK_ALONG, ()))
    before = (phases.get(name, {}) for name in PHASES[: PHASES.index(phase)])
    parents = [found[ATTACK_ALONG][-1] for found in before if ATTACK_ALONG in found]
    return [parents[-1]._replace(step=0), *line] if line and parents else line
