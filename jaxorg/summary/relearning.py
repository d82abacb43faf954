"""How soon later training brings the behaviour back, against a model that never had it."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from jaxorg import stats
from jaxorg.stats import KaplanMeier
from jaxorg.summary.estimates import Estimate, mean_of, times_of
from jaxorg.summary.tables import seeds_of

NEVER_POISONED = "clean"


@dataclass(frozen=True)
class Relearning:
    """One arm's return in the reversal. `ratio` is its median time as a share of the control's;
    `p` that of the log-rank test between them, `corrected` for all arms of the page."""

    label: str
    times: KaplanMeier | None
    control: KaplanMeier | None
    ratio: float
    p: float
    corrected: float
    returned: Estimate | None
    recovery: Estimate | None
    gap_recovered: Estimate | None


def relearning_of(runs: pd.DataFrame) -> tuple[Relearning, ...]:
    """The arms that have anything to say of it, with p corrected by Benjamini and Hochberg."""
    done = runs[runs.status == "done"]
    found = []
    for label, rows in done[done.control != NEVER_POISONED].groupby("label", sort=False):
        like = done[done.run_id.isin(rows.clean_control)]
        one = _relearning(str(label), rows, like if len(like) else None)
        if one.times or one.returned or one.gap_recovered or one.recovery:
            found.append(one)
    corrected = stats.benjamini_hochberg([one.p for one in found])
    pairs = zip(found, corrected, strict=True)
    return tuple(Relearning(**{**vars(one), "corrected": float(p)}) for one, p in pairs)


def _relearning(label: str, rows: pd.DataFrame, like: pd.DataFrame | None) -> Relearning:
    times = times_of(rows, "relearn_steps")
    control = times_of(like, "relearn_steps") if like is not None else None
    nan = float("nan")
    return Relearning(
        label=label,
        times=times,
        control=control,
        ratio=_ratio(times, control),
        p=_log_rank(rows, like) if times and control and like is not None else nan,
        corrected=nan,
        returned=mean_of(rows, "return_reversal"),
        recovery=mean_of(rows, "recovery"),
        gap_recovered=mean_of(rows, "gap_recovered"),
    )


def _ratio(times: KaplanMeier | None, control: KaplanMeier | None) -> float:
    """A share of medians; nan where one of them was not reached."""
    if not times or not control or times.median is None or not control.median:
        return float("nan")
    return times.median / control.median


def _log_rank(rows: pd.DataFrame, like: pd.DataFrame) -> float:
    """nan for runs that share seeds, as the test takes them to be independent."""
    sides = []
    for some in (rows, like):
        known = some.dropna(subset="relearn_steps")
        if not stats.independent(seeds_of(known)):
            return float("nan")
        sides += [known.relearn_steps, known.relearn_censored.astype(bool)]
    return stats.log_rank(*sides)
