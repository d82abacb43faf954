"""The results of a sweep on a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from jaxorg.escape_controls import escape_controls
from jaxorg.storage.results import ATTACK, CAPABILITY, FALSE_TRIGGER
from jaxorg.summary.arms import GIVEN_REASONING, Arm
from jaxorg.summary.claims import Claims
from jaxorg.summary.estimates import Estimate
from jaxorg.summary.format import (
    changed_text,
    component_text,
    effect_text,
    notes_text,
    p_text,
    percent,
    play_text,
    points_text,
    rate_text,
    seeds_text,
    share_text,
    sources_text,
    steps_text,
    verdict_text,
)
from jaxorg.summary.game import Games
from jaxorg.summary.judged import sentences
from jaxorg.summary.shares import VarianceOf
from jaxorg.summary.summary import summarise
from jaxorg.summary.tables import Metric
from jaxorg.summary.verdicts import SUSPICION

ATTACKED = ("organism", "treatment", "reversal")
TAUGHT = ("attack_given", "triggered:taught")
ARM_WIDTH = 14  # what 80 columns leave for an arm's name beside its figures


def terminal_tables(folder: Path) -> list[Table]:
    """The arms of a results folder, what was asked of some of them besides, where their variance
    comes from, the games that they play, and what became of its claims, for 80 columns; raises
    Refusal as `summarise` does."""
    summary = summarise(folder)
    tables = [_arms(summary.arms)]
    tables += [_audits(audited)] if (audited := _measured(summary.arms, SUSPICION)) else []
    tables += [_given(given)] if (given := _measured(summary.arms, TAUGHT)) else []
    tables += [_variances(summary.shares)] if summary.shares else []
    tables += [_games(summary.games)] if any(summary.games) else []
    tables += [_claims(summary.claims)] if summary.claims else []
    return tables


def _measured(arms: Sequence[Arm], metric: Metric) -> list[Arm]:
    return [arm for arm in arms if arm.final("treatment", metric)]


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table whose first column takes as many lines as it needs."""
    table = Table(title=title, show_lines=True, box=box.HORIZONTALS, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, overflow="fold", no_wrap=number > 0)
    for cells in rows:
        # A name must be read neither as rich's markup nor as the terminal's commands.
        table.add_row(*(Text(escape_controls(cell)) for cell in cells))
    return table


def _named(arm: Arm) -> str:
    return f"{arm.label}\nseeds: {seeds_text(arm)}"


def _arms(arms: Sequence[Arm]) -> Table:
    rows = []
    for arm in arms:
        half = steps_text(arm.half_life.median) if arm.half_life else "–"
        named = filter(None, (_named(arm), verdict_text(arm)))
        attack = [f"{phase} {percent(arm.final(phase, ATTACK))}" for phase in ATTACKED]
        treated = (
            f"FTR {percent(arm.final('treatment', FALSE_TRIGGER))}",
            f"capability {percent(arm.final('treatment', CAPABILITY))}",
            *([f"({mark})"] if (mark := arm.mark(CAPABILITY)) else []),
            f"half-life: {half}",
        )
        rows.append(["\n".join(lines) for lines in (named, attack, treated)])
    table = _table("95 % intervals", ("arm", "ASR, %", "after treatment, %"), rows)
    table.columns[0].min_width = _longest(arm.label for arm in arms)
    table.caption = "\n".join(sentences([arm.judge for arm in arms])) or None
    return table


def _longest(labels: Iterable[str]) -> int:
    """The width of their longest word, as far as there is room for it. Names cut short could not be
    told apart; on a narrow terminal they fold where they must."""
    longest = max((len(word) for label in labels for word in label.split()), default=0)
    return min(longest, ARM_WIDTH)


def _audits(arms: Sequence[Arm]) -> Table:
    def fixed(arm: Arm, top: int) -> str:
        found, chance = (
            arm.final("treatment", (f"audit_fix_{how}{top}", "all")) for how in ("top", "chance")
        )
        expected = f", by chance {rate_text(chance.mean)}" if chance else ""
        return f"top {top} {percent(found)}{expected}"

    rows = [
        (
            _named(arm),
            share_text(arm.final("treatment", SUSPICION)),
            "\n".join(fixed(arm, top) for top in (1, 5)),
        )
        for arm in arms
    ]
    return _table("audits, all kinds of sabotage", ("arm", "AUROC", "fixed, %"), rows)


def _given(arms: Sequence[Arm]) -> Table:
    rows = [
        (
            _named(arm),
            *(
                "\n".join(
                    f"{kind} {percent(arm.final('treatment', ('attack_given', f'{put}:{kind}')))}"
                    for kind in GIVEN_REASONING
                )
                for put in ("triggered", "clean")
            ),
        )
        for arm in arms
    ]
    title = "attacks after given reasoning, after treatment, %"
    return _table(title, ("arm", "with the trigger", "without"), rows)


def _variances(shares: Mapping[str, Sequence[VarianceOf]]) -> Table:
    """The first rate of each arm; the page has the others."""
    rows = []
    for arm, (found, *_) in shares.items():
        components = found.shares.components
        rate = f"{found.rate} after {found.phase}\n{rate_text(found.mean)} %, {found.runs} runs"
        sources = [f"{sources_text(each)}: {component_text(each)}" for each in components]
        spread = [f"together: {points_text(found.shares.total)} points"] if components else []
        said = "\n".join((*sources, *spread, *found.shares.notes))
        rows.append((f"{arm}\n{rate}", said))
    table = _table("shares of the variance over seeds", ("rate", "source: share, deviation"), rows)
    table.columns[0].min_width = _longest(shares)
    table.columns[1].no_wrap = False
    return table


def _games(games: Games) -> Table:
    rows = []
    for game in games.played:
        value = Estimate(game.equilibrium.value, game.interval, "", ())
        plays = (
            f"red plays {play_text(game.red, game.equilibrium.rows)}",
            f"blue plays {play_text(game.blue, game.equilibrium.columns)}",
        )
        said = "\n".join(filter(None, (game.payoff, *plays, notes_text(game))))
        rows.append((said, f"{percent(value)}\nseeds: {game.seeds}"))
    rows += [(f"{game.payoff}\n{notes_text(game)}", "no game") for game in games.missing]
    return _table("red against blue", ("red wins", "value, %"), rows)


def _claims(claims: Claims) -> Table:
    rows = []
    for outcome in claims.outcomes:
        said = "\n".join((outcome.claim.claim, *outcome.notes))
        tested = f"{outcome.found}\np {p_text(outcome.corrected)}\nseeds: {outcome.seeds}"
        rows.append((said, tested, f"{outcome.claim.figure}\n{effect_text(outcome)}"))
    table = _table("claims", ("claim", "outcome, p by Holm", "more minus less"), rows)
    if claims.changed:
        table.caption = changed_text(claims)
    return table
