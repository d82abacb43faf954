"""What became of the claims that a sweep file made before it was run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean
from typing import Any, Literal, TypeAlias

import pandas as pd

from jaxorg import stats
from jaxorg.stats import Interval
from jaxorg.storage.results import CENSORED
from jaxorg.summary.hulls import Group
from jaxorg.summary.tables import grid_fields, holds, seeds_of, text
from jaxorg.sweepfile.controls import CLEAN
from jaxorg.sweepfile.prereg import (
    CONTROL,
    GROUP_FIGURES,
    Claim,
    Declared,
    block_hash,
    most_apart,
    unmatched,
)
from jaxorg.sweepfile.seeds import Seeds, design_text

Found: TypeAlias = Literal["seen", "opposite", "not seen", "untested"]
NAN = float("nan")


@dataclass(frozen=True)
class Outcome:
    """What was found of one claim. The effect is the mean over seeds of more minus less."""

    claim: Claim
    found: Found
    effect: float
    interval: Interval
    seeds: int
    independent: int  # seeds, or levels of what they share most
    pairs: int
    p: float
    corrected: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Claims:
    """The block of claims: outcomes in its order, and what a reader must know of all of them."""

    outcomes: tuple[Outcome, ...]
    first_seed: int
    seeds: str  # their number, or design
    changed: int  # runs that were made when the block was another one, or not there


@dataclass(frozen=True)
class Case:
    """One run, or one group of them, that a claim may select. `value` is None where it has none;
    a `censored` one is a lower bound."""

    settings: Mapping[str, Any]
    seeds: Seeds
    status: str
    value: float | None
    censored: bool = False
    run_id: str = ""
    clean_control: str = ""


def claims_of(
    declared: Declared, planned: Iterable[str], runs: pd.DataFrame, groups: Sequence[Group]
) -> Claims | None:
    """The outcomes of what was declared; None where nothing was.

    As long as a planned run is missing, nothing is tested: a test that is looked at before its end
    says less than its p.

    Args:
        declared: the claims, and the grid and seeds that they speak of.
        planned: ids of the runs that the sweep is to make.
        runs: the table of those that it made.
        groups: the hull of each seed of each organism under each treatment.
    """
    if not declared.prereg:
        return None
    missing = len({*planned} - {*runs.run_id})
    outcomes = [
        replace(_untested(claim), notes=(f"runs still to be made: {missing}",))
        if missing
        else judge(claim, _cases(claim, runs, groups), declared)
        for claim in declared.prereg
    ]
    corrected = stats.holm([outcome.p for outcome in outcomes])
    least = len(outcomes)
    return Claims(
        outcomes=tuple(
            _decided(outcome, float(p), least)
            for outcome, p in zip(outcomes, corrected, strict=True)
        ),
        first_seed=declared.first_seed,
        seeds=design_text(declared.seeds),
        changed=int((runs.prereg.map(text) != block_hash(declared.prereg)).sum()),
    )


def judge(claim: Claim, cases: Sequence[Case], declared: Declared) -> Outcome:
    """Pair the two sides of a claim by seed and by all that they do not differ in, and test the
    mean differences of the seeds. The p is not corrected yet."""
    free = unmatched(claim, declared.grid)
    sides = _sides(claim, cases)
    more, less = (_by_pair(side, free) for side in sides)
    notes = _notes([case for side in sides for case in side])
    by_seed: dict[Seeds, list[float]] = defaultdict(list)
    for key in sorted({*more} & {*less}):
        scores = [
            _difference(claim.figure, one, other)
            for one, other in product(more[key], less[key])
            if one.value is not None and other.value is not None
        ]
        if scores:
            by_seed[key[0]].append(fmean(scores))
    if lonely := len({*more} ^ {*less}):
        notes.append(f"{lonely} without a partner")
    if not by_seed:
        return replace(_untested(claim), notes=(*notes, "no pair has the figure"))
    means = [fmean(differences) for differences in by_seed.values()]
    labels, most = [*by_seed], most_apart(claim.figure)
    compared = stats.paired(means, most, labels=labels)
    p = compared.p
    if claim.within is not None:
        p = stats.equivalent(means, claim.within, most, labels)
    return Outcome(
        claim,
        found="untested",
        effect=compared.effect,
        interval=compared.interval,
        seeds=compared.n,
        independent=stats.fewest_levels(labels),
        pairs=sum(map(len, by_seed.values())),
        p=p,
        corrected=NAN,
        notes=tuple(notes),
    )


def _untested(claim: Claim) -> Outcome:
    return Outcome(claim, "untested", NAN, Interval(NAN, NAN), 0, 0, 0, NAN, NAN, ())


def _decided(outcome: Outcome, corrected: float, claims: int) -> Outcome:
    """The outcome after correction for all claims of the block."""
    claim = outcome.claim
    if corrected != corrected:
        why = "runs share seeds and do not tell them apart"
        lost = (why if outcome.seeds > 1 else "one seed has no interval",) if outcome.seeds else ()
        return replace(outcome, notes=(*outcome.notes, *lost))
    least = claims * stats.least_p(outcome.independent, claim.within, most_apart(claim.figure))
    if least > claim.alpha:
        few = (
            f"with {outcome.independent} seeds and {claims} claims p is {min(least, 1.0):.2g} or "
            f"more"
        )
        outcome = replace(outcome, notes=(*outcome.notes, few))
    if claim.within is not None:
        near: Found = "seen" if corrected <= claim.alpha else "not seen"
        return replace(outcome, found=near, corrected=corrected)
    found: Found = "not seen"
    if corrected <= claim.alpha:
        found = "seen" if outcome.effect > 0 else "opposite"
    return replace(outcome, found=found, corrected=corrected)


def _cases(claim: Claim, runs: pd.DataFrame, groups: Sequence[Group]) -> list[Case]:
    """All that a claim may select: groups for a figure of groups, else runs. Runs that did not end
    well have no value, and stand for themselves."""
    fields = grid_fields(runs)
    flag = CENSORED.get(claim.figure)
    cases = []
    if claim.figure in GROUP_FIGURES:
        for group in groups:
            settings = {**group.settings, CONTROL: group.control}
            cases.append(Case(settings, group.seeds, "done", group.figures.get(claim.figure)))
        runs = runs[runs.status != "done"]
    for row, seeds in zip(runs.to_dict("records"), seeds_of(runs), strict=True):
        settings = {**{name: row[name] for name in fields}, CONTROL: text(row["control"])}
        value = row.get(claim.figure)
        known = row["status"] == "done" and pd.notna(value)
        late = bool(known and flag and row[flag])
        names = row["run_id"], text(row["clean_control"])
        cases.append(Case(settings, seeds, row["status"], value if known else None, late, *names))
    return cases


def _sides(claim: Claim, cases: Sequence[Case]) -> list[list[Case]]:
    """The cases on each side. Where sides differ in nothing else, clean controls are those of the
    very runs on the other side, and stand for their settings and seeds."""
    sides = [
        [case for case in cases if _selects({**claim.where, **side}, case)]
        for side in (claim.more, claim.less)
    ]
    controls = {case.run_id: case for case in cases if case.settings[CONTROL] == CLEAN}
    alone = claim.named == {CONTROL} and claim.figure not in GROUP_FIGURES
    for place, side in enumerate((claim.more, claim.less)):
        if alone and side.get(CONTROL) == CLEAN:
            sides[place] = [
                replace(controls[run.clean_control], settings=run.settings, seeds=run.seeds)
                for run in sides[1 - place]
                if run.clean_control in controls
            ]
    return sides


def _selects(side: Mapping[str, Any], case: Case) -> bool:
    """Whether a case is on a side; controls are where they are asked for."""
    wanted = {CONTROL: "", **side}
    return all(holds(case.settings.get(path), value) for path, value in wanted.items())


Key: TypeAlias = tuple[Seeds, str]


def _by_pair(cases: Sequence[Case], free: set[str]) -> dict[Key, list[Case]]:
    """The cases of a side that ended well, by what the other side's must share with them."""
    found: dict[Key, list[Case]] = defaultdict(list)
    for case in cases:
        if case.status != "done":
            continue
        settings = case.settings.items()
        shared = {k: v for k, v in settings if k != CONTROL and not _within(k, free)}
        found[case.seeds, repr(sorted(shared.items()))].append(case)
    return found


def _within(path: str, free: set[str]) -> bool:
    """Whether a setting is one of `free`, or a part of one: an axis may set a whole organism, and
    the parts that differ may be columns of their own."""
    return any(path == each or path.startswith(f"{each}.") for each in free)


def _notes(cases: Sequence[Case]) -> list[str]:
    """What the test had to do without."""
    states = Counter(case.status for case in cases)
    empty = sum(case.status == "done" and case.value is None for case in cases)
    lost = [(states[name], name) for name in ("diverged", "failed")] + [
        (empty, "without the figure")
    ]
    return [f"{count} {name}" for count, name in lost if count]


def _difference(figure: str, more: Case, less: Case) -> float:
    """More minus less; of a figure that may be a lower bound only which is larger, as far as known
    (Gehan 1965): 1, -1, or 0."""
    assert more.value is not None and less.value is not None
    if figure not in CENSORED:
        return more.value - less.value
    if more.value > less.value or (more.value == less.value and more.censored):
        return 0.0 if less.censored else 1.0
    if more.value < less.value or (more.value == less.value and less.censored):
        return 0.0 if more.censored else -1.0
    return 0.0
