"""Where the variance of an arm's rates comes from, if its seeds are crossed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from jaxorg import stats
from jaxorg.storage.results import ATTACK, CAPABILITY
from jaxorg.summary.arms import at_the_end
from jaxorg.summary.tables import History, Metric, seeds_of

RATES: Mapping[str, Metric] = {"ASR": ATTACK, "Capability": CAPABILITY}


@dataclass(frozen=True)
class VarianceOf:
    """A rate of an arm at the end of a phase: its mean over runs, and what its variance is made
    of."""

    rate: str
    phase: str
    mean: float
    runs: int
    shares: stats.Shares


def shares_of(rows: pd.DataFrame, histories: Mapping[str, History]) -> Iterator[VarianceOf]:
    """The rates of an arm whose finished runs share seeds; nothing of one whose sources always
    change together. Of the organism only where it is not treated, as treatment seeds share it."""
    done = rows[rows.status == "done"]
    seeds = seeds_of(done)
    if stats.independent(seeds):
        return
    measured = dict(zip(seeds, (histories.get(run, {}) for run in done.run_id), strict=True))
    phases = [p for p in ("treatment", "reversal") if any(p in each for each in measured.values())]
    for name, metric in RATES.items():
        for phase in phases or ["organism"]:
            ends = {each: at_the_end(run.get(phase, {})) for each, run in measured.items()}
            runs = [
                stats.VarianceRun(*each, *tally)
                for each, end in ends.items()
                if metric in end and (tally := end[metric].tally) and tally[1] > 1
            ]
            if runs:
                mean = sum(run.k / run.n for run in runs) / len(runs)
                shares = stats.variance_shares(runs)
                yield VarianceOf(name, phase, mean, len(runs), shares)
