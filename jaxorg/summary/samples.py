"""What stands beside the figures: answers, runs without an end, and where the numbers come from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from jaxorg.summary.tables import PHASES, seed_text, seeds_of, text


@dataclass(frozen=True)
class Sample:
    """One answer of one run at the end of a phase."""

    phase: str
    condition: str
    prompt: str
    response: str
    outcome: str


@dataclass(frozen=True)
class Unfinished:
    """A run that diverged or failed, and why."""

    run_id: str
    arm: str
    seed: str
    status: str
    error: str


def unfinished_runs(runs: pd.DataFrame) -> tuple[Unfinished, ...]:
    """The runs that have no end."""
    lost = runs[runs.status != "done"]
    return tuple(
        Unfinished(
            row.run_id, row.label, seed_text(int(row.seed), seeds), row.status, text(row.error)
        )
        for row, seeds in zip(lost.itertuples(), seeds_of(lost), strict=True)
    )


def samples_of(samples: pd.DataFrame, finished: pd.DataFrame) -> dict[str, tuple[Sample, ...]]:
    """By arm: two sampled answers a phase and condition, from the last step of the first seed.

    Taken in order of prompt, so that no answer is picked for what it says.
    """
    drawn = samples[~samples.greedy.astype(bool)]
    last = drawn[drawn.step == drawn.groupby(["run_id", "phase"]).step.transform("max")]
    last = last.assign(order=last.phase.map(PHASES.index))
    last = last.sort_values(["order", "condition", "prompt", "response"])
    few = last.groupby(["run_id", "order", "condition"], sort=False).head(2)
    columns = few[["phase", "condition", "prompt", "response", "outcome"]]
    firsts = finished.groupby("label", sort=False).run_id.first()
    chosen = {
        str(label): tuple(Sample(*map(text, row)) for row in columns[few.run_id == run].to_numpy())
        for label, run in firsts.items()
    }
    return {label: rows for label, rows in chosen.items() if rows}


def provenance_of(runs: pd.DataFrame) -> dict[str, str]:
    """Where the numbers come from; several values of one thing are all listed."""

    def each(cells: Iterable[object], between: str = ", ") -> str:
        return between.join(sorted({text(cell) for cell in cells} - {""})) or "not recorded"

    versions = [json.loads(cell) for cell in {text(cell) for cell in runs.versions} - {""}]
    packages = sorted({f"{name} {version}" for row in versions for name, version in row.items()})
    return {
        "Sweep": each(runs.sweep),
        "Size": each(runs["size"]),
        "Parameters": each((f"{int(count):,}" for count in runs.parameters.dropna()), " and "),
        "Tokens in a run's phases, median": f"{int(runs.tokens.median()):,}",
        "Device seconds of a run's phases, median": f"{runs.chip_seconds.median():,.1f}",
        "Device": each(runs.device),
        "Git commit": each(runs.git_commit),
        "Versions": each(packages),
    }
