"""From a folder of parquet to small typed tables: what the report and the terminal show.

An arm is one point of the grid; its seeds are the replicates. Estimates take finished runs only,
and say beside them how many did not finish.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from jaxorg.errors import Damaged, Refusal
from jaxorg.planning import manifest
from jaxorg.summary.arms import Arm, arm_of
from jaxorg.summary.bases import OfBase, of_bases
from jaxorg.summary.claims import Claims, claims_of
from jaxorg.summary.curves import Curve, curve
from jaxorg.summary.game import Games, games_of
from jaxorg.summary.hulls import Hull, groups_of, hulls_of
from jaxorg.summary.relearning import Relearning, relearning_of
from jaxorg.summary.samples import (
    Sample,
    Unfinished,
    provenance_of,
    samples_of,
    unfinished_runs,
)
from jaxorg.summary.shares import VarianceOf, shares_of
from jaxorg.summary.tables import EVALS, RUNS, SAMPLES, histories, label_runs, read_table, text
from jaxorg.summary.verdicts import RunVerdict, verdicts_of
from jaxorg.sweepfile.prereg import Declared


@dataclass(frozen=True)
class Summary:
    """All that a results folder says. Mappings keep the order in which they are to be shown."""

    runs: int
    claims: Claims | None
    arms: tuple[Arm, ...]
    shares: Mapping[str, tuple[VarianceOf, ...]]
    bases: Mapping[str, tuple[OfBase, ...]]
    curves: Mapping[str, tuple[Curve, ...]]
    hulls: tuple[Hull, ...]
    games: Games
    relearning: tuple[Relearning, ...]
    verdicts: tuple[RunVerdict, ...]
    samples: Mapping[str, tuple[Sample, ...]]
    unfinished: tuple[Unfinished, ...]
    provenance: Mapping[str, str]


def summarise(folder: Path) -> Summary:
    """Read a results folder and reduce it to tables per arm.

    Raises:
        Refusal: the folder is missing, holds no results, or results of another schema, or runs
            were made under claims that it does not hold.
    """
    made = read_table(folder, "runs", RUNS)
    declared, planned = declared_in(folder, made)
    runs = label_runs(made, declared.grid)
    finished = runs[runs.status == "done"]
    evals = read_table(folder, "evals", EVALS, required=len(finished) > 0)
    measured = histories(evals[evals.run_id.isin(finished.run_id)])
    by_arm = [(str(label), rows) for label, rows in runs.groupby("label", sort=False)]
    shares = {label: tuple(shares_of(rows, measured)) for label, rows in by_arm}
    bases = {label: tuple(of_bases(rows, measured)) for label, rows in by_arm}
    groups = groups_of(runs, measured, declared.grid)
    hulls = hulls_of(groups)
    return Summary(
        runs=len(runs),
        claims=claims_of(declared, planned, runs, groups),
        arms=tuple(arm_of(label, rows, measured) for label, rows in by_arm),
        shares={label: rates for label, rates in shares.items() if rates},
        bases={label: found for label, found in bases.items() if found},
        curves={
            phase: tuple(filter(None, (curve(*arm, phase, measured) for arm in by_arm)))
            for phase in ("treatment", "reversal")
        },
        hulls=hulls,
        games=games_of(runs, hulls, declared.grid),
        relearning=relearning_of(runs),
        verdicts=verdicts_of(runs, measured),
        samples=samples_of(read_table(folder, "samples", SAMPLES, required=False), finished),
        unfinished=unfinished_runs(runs),
        provenance=provenance_of(runs),
    )


def declared_in(folder: Path, runs: pd.DataFrame) -> tuple[Declared, list[str]]:
    """The claims of the sweep that a folder is for, and the runs that it is to have.

    Raises:
        Refusal: its plan is damaged, or missing although claims were declared.
    """
    try:
        known = manifest.read(folder)
        if known:
            return Declared.model_validate(known.source), list(known.runs)
    except (Damaged, AttributeError, KeyError, TypeError, ValueError) as problem:
        raise Refusal(f"plan.json: {folder} holds no good one; run the sweep again") from problem
    if runs.prereg.map(text).any():
        raise Refusal(f"plan.json: {folder} lacks it, and claims stand there; copy it, too")
    return Declared(), []
