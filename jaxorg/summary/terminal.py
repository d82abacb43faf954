"""The results of a sweep on a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from jaxorg.summary.arms import Arm
from jaxorg.summary.claims import Claims
from jaxorg.summary.summary import summarise
from jaxorg.summary.tables import ATTACK, CAPABILITY, FALSE_TRIGGER
from jaxorg.summary.words import (
    changed_text,
    effect_text,
    p_text,
    percent,
    seeds_text,
    steps_text,
    verdict_text,
)
from jaxorg.visible import visible

ATTACKED = ("organism", "treatment", "reversal")
ARM_WIDTH = 20  # what 80 columns leave for an arm's name beside its figures


def terminal_tables(folder: Path) -> list[Table]:
    """The arms of a results folder, and what became of its claims, for 80 columns; raises Refusal
    as `summarise` does."""
    summary = summarise(folder)
    claims = [_claims(summary.claims)] if summary.claims else []
    return [_arms(summary.arms), *claims]


def _arms(arms: Sequence[Arm]) -> Table:
    longest = max((len(word) for arm in arms for word in arm.label.split()), default=0)
    # Names cut short could not be told apart; on a narrow terminal they fold where they must.
    table = Table(title="95 % intervals", show_lines=True, box=box.HORIZONTALS, pad_edge=False)
    table.add_column("arm", overflow="fold", min_width=min(longest, ARM_WIDTH))
    table.add_column("ASR, %", no_wrap=True)
    table.add_column("after treatment, %", no_wrap=True)
    for arm in arms:
        half = steps_text(arm.half_life.median) if arm.half_life else "–"
        named = (arm.label, f"seeds: {seeds_text(arm)}", verdict_text(arm))
        attack = [f"{phase} {percent(arm.final(phase, ATTACK))}" for phase in ATTACKED]
        treated = (
            f"FTR {percent(arm.final('treatment', FALSE_TRIGGER))}",
            f"capability {percent(arm.final('treatment', CAPABILITY))}",
            f"half-life: {half}",
        )
        # An arm's name must be read neither as rich's markup nor as the terminal's commands.
        table.add_row(*(Text(visible("\n".join(lines))) for lines in (named, attack, treated)))
    return table


def _claims(claims: Claims) -> Table:
    table = Table(title="claims", show_lines=True, box=box.HORIZONTALS, pad_edge=False)
    table.add_column("claim", overflow="fold")
    table.add_column("outcome, p by Holm", no_wrap=True)
    table.add_column("more minus less", no_wrap=True)
    for outcome in claims.outcomes:
        said = "\n".join((outcome.claim.claim, *outcome.notes))
        tested = f"{outcome.found}\np {p_text(outcome.corrected)}\nseeds: {outcome.seeds}"
        compared = f"{outcome.claim.figure}\n{effect_text(outcome)}"
        cells = (said, tested, compared)
        table.add_row(*(Text(visible(cell)) for cell in cells))
    if claims.changed:
        table.caption = changed_text(claims)
    return table
