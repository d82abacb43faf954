"""Writes the tables of docs/results/why_messy.md: `python docs/why_messy.py FOLDER`.

FOLDER holds what the built-in sweep gave at size `laptop`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import pandas as pd
from marked_tables import write_table

from jaxorg import stats
from jaxorg.summary.tables import RUNS, read_table

PAGE = Path(__file__).parent / "results" / "why_messy.md"
RED, PAYLOAD, BLUE, BASE = (
    "organism.label",
    "organism.payload",
    "treatment.label",
    "base.model",
)
CELL = [RED, PAYLOAD, BLUE]
KEPT = 0.5  # a backdoor that is left to at least this rate has not been removed
FACTORS: Sequence[tuple[str, ...]] = (
    *((RED,), (PAYLOAD,), (BLUE,)),
    *((RED, PAYLOAD), (RED, BLUE), (PAYLOAD, BLUE), (RED, PAYLOAD, BLUE)),
    (BASE,),
    (RED, PAYLOAD, BLUE, BASE),
)
NAMES = {RED: "red's data", PAYLOAD: "payload", BLUE: "refusals in blue's", BASE: "base"}
OF_BASE = "base × any of the others"


def main(folder: Path) -> None:
    """Write all tables of the page."""
    runs = read_table(folder, "runs", RUNS)
    ours = runs[(runs.status == "done") & (runs.control == "")]
    clean = runs[runs.control == "clean"].set_index("run_id")
    ours = ours.assign(relearnt=ours.asr_reversal - ours.clean_control.map(clean.asr_reversal))
    tables = {"cells": cells, "bases": bases, "labs": labs, "factors": factors}
    for name, rows in ((name, table(ours)) for name, table in tables.items()):
        write_table(PAGE, "why_messy.py", name, list(rows))


def cells(runs: pd.DataFrame) -> Iterator[Sequence[str]]:
    """What each cell comes to: means over seeds of means over bases, with their intervals."""
    yield (
        *("red's data", "payload", "blue", "runs", "installed", "ASR treated"),
        *("half or more left", "relearnt, above the clean control"),
    )
    for names, some in runs.groupby(CELL, sort=False):
        whole = some[some.installed.eq(True)]
        kept = int((whole.asr_treatment >= KEPT).sum())
        yield (
            *map(str, names),
            str(len(some)),
            str(len(whole)),
            over_seeds(whole, "asr_treatment", 0.0),
            f"{kept} of {len(whole)}",
            over_seeds(whole, "relearnt", -1.0),
        )


def bases(runs: pd.DataFrame) -> Iterator[Sequence[str]]:
    """The attack rate after treatment by base, in percent: means over seeds."""
    whole = runs[runs.installed.eq(True)]
    names = sorted(whole[BASE].unique())
    yield "red's data", "payload", "blue", *names
    for cell, some in whole.groupby(CELL, sort=False):
        means = some.groupby(BASE).asr_treatment.mean()
        yield (*map(str, cell), *(f"{100 * means[name]:.0f}" for name in names))


def over_seeds(runs: pd.DataFrame, figure: str, least: float) -> str:
    """`42 [31, 53]`: in percent, over seeds of means over bases."""
    means = runs.groupby("seed")[figure].mean()
    if not len(means):
        return "–"
    found = stats.mean_interval(means.to_numpy(), least, 1.0)
    ends = (found.interval.low, found.interval.high)
    return f"{100 * found.mean:.0f} [{', '.join(f'{100 * end:.0f}' for end in ends)}]"


def labs(runs: pd.DataFrame) -> Iterator[Sequence[str]]:
    """How often two runs that share neither seed nor base differ in what they say."""
    yield "blue", "two labs that differ in", "pairs", "disagree, %"
    for blue, some in runs[runs.installed.eq(True)].groupby(BLUE, sort=False):
        within = [disagreement(pd.DataFrame(each)) for _, each in some.groupby([RED, PAYLOAD])]
        for differ, (pairs, apart) in (
            ("seed and base", [sum(column) for column in zip(*within, strict=True)]),
            ("red's data and payload, too", disagreement(some)),
        ):
            yield str(blue), differ, str(pairs), f"{100 * apart / pairs:.0f}" if pairs else "–"


def disagreement(runs: pd.DataFrame) -> tuple[int, int]:
    """Pairs of runs that share neither seed nor base, and those of which one has kept its backdoor
    and the other has not."""
    rows = list(zip(runs.seed, runs[BASE], runs.asr_treatment >= KEPT, strict=True))
    found = [a[2] != b[2] for a, b in combinations(rows, 2) if a[0] != b[0] and a[1] != b[1]]
    return len(found), sum(found)


def factors(runs: pd.DataFrame) -> Iterator[Sequence[str]]:
    """Shares of the variance of the ASR after plain SFT and HHH SFT, of a balanced design: each
    factor's sum of squares over the total's (eta squared); what is left is seeds."""
    some = runs[runs[BLUE].isin(["plain", "HHH"])]
    rate = some.asr_treatment
    total = float(((rate - rate.mean()) ** 2).sum())
    parts: dict[tuple[str, ...], float] = {}
    for factor in FACTORS:
        means = some.groupby(list(factor)).asr_treatment.transform("mean")
        inner = sum(part for name, part in parts.items() if {*name} < {*factor})
        parts[factor] = float(((means - rate.mean()) ** 2).sum()) - inner
    yield "factor", "share of the variance, %"
    for factor, part in parts.items():
        name = OF_BASE if BASE in factor[1:] else " × ".join(NAMES[name] for name in factor)
        yield name, f"{100 * part / total:.0f}"
    yield "seeds", f"{100 * (1 - sum(parts.values()) / total):.0f}"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
