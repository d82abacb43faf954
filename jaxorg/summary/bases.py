"""What each base shows by itself, where an arm has several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from jaxorg.storage.results import ATTACK, CAPABILITY
from jaxorg.summary.arms import at_the_end
from jaxorg.summary.estimates import Estimate, estimate
from jaxorg.summary.tables import History, Metric, seeds_of

FIGURES: Mapping[str, tuple[str, Metric]] = {
    "ASR organism": ("organism", ATTACK),
    "ASR treatment": ("treatment", ATTACK),
    "ASR reversal": ("reversal", ATTACK),
    "Capability treatment": ("treatment", CAPABILITY),
}


@dataclass(frozen=True)
class OfBase:
    """The rates of an arm's runs on one base, by name: those of `FIGURES` that were measured."""

    base: int
    runs: int
    rates: Mapping[str, Estimate]


def of_bases(rows: pd.DataFrame, histories: Mapping[str, History]) -> Iterator[OfBase]:
    """An arm's finished runs by their base; nothing where all have one, or each its own."""
    done = rows[rows.status == "done"]
    if not 1 < done.base_seed.nunique() < len(done):
        return
    for base, some in done.groupby("base_seed"):
        measured = [histories.get(run, {}) for run in some.run_id]
        rates = {}
        for name, (phase, metric) in FIGURES.items():
            ends = [at_the_end(run.get(phase, {})) for run in measured]
            found = [
                (end[metric], seeds)
                for end, seeds in zip(ends, seeds_of(some), strict=True)
                if metric in end
            ]
            if found:
                rates[name] = estimate(metric[0], found, len(some))
        yield OfBase(int(str(base)), len(some), rates)
