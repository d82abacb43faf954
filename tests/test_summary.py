"""Hulls, games and relearning, from tables made by hand."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_report import SCHEMA, Elements, Row, one_seed, page_of, run_rows, write, write_plan

from jaxorg.errors import Refusal
from jaxorg.stats import Interval, Point
from jaxorg.summary import ATTACK, CAPABILITY, Group, Metric, summarise
from jaxorg.summary.estimates import Estimate
from jaxorg.summary.format import percent, rate_text
from jaxorg.summary.game import Games, games_of
from jaxorg.summary.hulls import groups_of, hulls_of
from jaxorg.summary.relearning import relearning_of
from jaxorg.summary.tables import Reading, histories, label_runs
from jaxorg.summary.terminal import terminal_tables
from jaxorg.summary.verdicts import verdict_of

KIND, RATE, STEPS = "treatment.kind", "treatment.train.learning_rate", "organism.train.steps"
PROMPTS = ("", ":along", ":first", ":second")
# attacks and right answers of 100 at step 10, by treatment and rate; before: 100 and 80
TREATED = {
    ("hhh", 1e-4): (40, 80),
    ("hhh", 1e-3): (0, 60),
    ("pirate", 1e-4): (90, 40),
    ("pirate", 1e-3): (0, 8),
}


def runs_and_evals(seeds: int, organisms: tuple[int, ...] = (100,)) -> tuple[list[Row], list[Row]]:
    (example, *_) = run_rows(1)
    del example["treatment.method"]
    runs, evals = [], []
    for steps in organisms:
        for (kind, rate), last in TREATED.items():
            for seed in range(seeds):
                run = f"{steps}-{kind}-{rate}-{seed}"
                fields = {KIND: kind, RATE: rate, STEPS: steps, **one_seed(seed)}
                runs.append({**example, "run_id": run, "arm": run[:-2], **fields})
                evals += rows(run, "organism", 50, (100, 80))
                evals += rows(run, "treatment", 10, (min(last[0] + steps // 100 - 1, 100), last[1]))
    return runs, evals


def rows(run: str, phase: str, step: int, counts: tuple[int, int]) -> Iterator[Row]:
    about = {"run_id": run, "fingerprint": "l", "phase": phase, "step": step, "tokens": 0, "n": 100}
    for (metric, condition), k in zip(
        (("attack_exact", "triggered"), ("capability", "clean")), counts, strict=True
    ):
        for some in PROMPTS:
            yield {
                **about,
                "metric": metric,
                "condition": condition + some,
                "k": k,
                "value": k / 100,
            }


def groups(seeds: int = 2, **changes: Any) -> list[Group]:
    runs, evals = (pd.DataFrame(found) for found in runs_and_evals(seeds))
    return groups_of(label_runs(runs.assign(**changes)), histories(evals))


def test_a_group_pools_the_rates_of_one_seed_and_treatment() -> None:
    found = groups()
    assert [(group.treatment, group.seeds.base) for group in found] == [
        ("treatment=hhh", 0),
        ("treatment=hhh", 1),
        ("treatment=pirate", 0),
        ("treatment=pirate", 1),
    ]
    hhh = found[0]
    assert hhh.settings == {KIND: "hhh", STEPS: 100}
    assert hhh.points == (pytest.approx(Point(1.0, 0.4)), pytest.approx(Point(0.75, 0.0)))
    # the triangle under the diagonal, and what lies over it: by hand, with removal upward
    # (0, 1), (0.75, 1), (1, 0.6), (1, 0): 0.75 + 0.25 * (1 + 0.6) / 2
    assert hhh.figures["hull_auc"] == pytest.approx(0.95)
    assert hhh.figures["left_at_10"] == pytest.approx(0.4 * 0.15 / 0.25)
    assert hhh.figures["left_at_5"] == pytest.approx(0.4 * 0.20 / 0.25)


def test_a_hull_has_one_figure_a_seed() -> None:
    first, second = hulls_of(groups(3))
    assert (first.organism, first.treatment) == ("steps=100", "treatment=hhh")
    assert first.figures["hull_auc"].points == pytest.approx((0.95, 0.95, 0.95))
    assert second.figures["hull_auc"].mean == pytest.approx(0.55)  # (0.1, 1 removed)


def test_a_label_stands_for_what_goes_with_it() -> None:
    runs, evals = (pd.DataFrame(found) for found in runs_and_evals(1, organisms=(100, 200)))
    runs["organism.label"] = runs[STEPS].map({100: "few steps", 200: "many"})
    runs["treatment.label"] = runs[RATE].map({1e-4: "cool", 1e-3: "hot"})
    labelled, measured = label_runs(runs), histories(evals)
    grid = [{"organism.label": [], STEPS: []}, {KIND: []}, {"treatment.label": [], RATE: []}]
    first, *others = groups_of(labelled, measured, grid)
    assert (first.organism, first.treatment) == ("few steps", "treatment=hhh")
    assert len(first.points) == 2 and len(others) == 3
    (end,) = games_of(labelled.assign(asr_reversal=None), []).played
    assert end.red == ("few steps", "many")
    assert end.blue[0] == "treatment=hhh × cool"


def test_a_control_under_a_label_of_an_organism_leaves_the_label_to_stand_for_it() -> None:
    """A control of a kind of its own has the settings of that kind, and the label of another."""
    runs, evals = (pd.DataFrame(found) for found in runs_and_evals(1, organisms=(100, 200)))
    runs["organism.label"] = runs[STEPS].map({100: "few steps", 200: "many"})
    control = runs[runs["organism.label"] == "few steps"].assign(
        run_id=lambda rows: rows.run_id + "-fact", control="memorised_fact", **{STEPS: 50}
    )
    labelled = label_runs(pd.concat([runs, control], ignore_index=True))
    grid = [{"organism.label": [], STEPS: []}, {KIND: []}, {RATE: []}]
    assert {group.organism for group in groups_of(labelled, histories(evals), grid)} == {
        "few steps",
        "many",
    }


def test_an_organism_without_its_behaviour_has_no_hull() -> None:
    assert groups(installed=False) == []
    assert groups(status="diverged") == []


def test_without_halves_there_are_points_but_no_figures() -> None:
    halves = [f"{put}:{half}" for put in ("clean", "triggered") for half in ("first", "second")]
    runs, evals = (pd.DataFrame(found) for found in runs_and_evals(1))
    found = groups_of(label_runs(runs), histories(evals[~evals.condition.isin(halves)]))
    assert found[0].points and found[0].robustness is None and found[0].figures == {}
    assert hulls_of(found)[0].figures == {}


def test_the_game_is_played_by_all_organisms_and_treatments() -> None:
    runs, evals = (pd.DataFrame(found) for found in runs_and_evals(2, organisms=(100, 2100)))
    labelled = label_runs(runs.assign(asr_reversal=None))
    hulls = hulls_of(groups_of(labelled, histories(evals)))
    left, end = games_of(labelled, hulls).played
    assert left.red == ("steps=100", "steps=2100")
    assert left.blue == ("treatment=hhh", "treatment=pirate") and left.seeds == 2
    assert left.wins[0] == pytest.approx((0.24, 1 - 0.1 / 0.9))
    assert left.worst == (1, 1)  # the longer trained one leaves more
    assert left.equilibrium.value == pytest.approx(left.wins[1][0])  # of the cheaper treatment
    assert len(end.blue) == 4 and set(end.wins[0]) == {0.5}


def test_arms_are_shown_in_the_order_of_the_file_where_it_is_known() -> None:
    runs = pd.DataFrame(runs_and_evals(1, organisms=(100, 2100, 300))[0])
    by_size = label_runs(runs)[STEPS].drop_duplicates().tolist()
    as_listed = label_runs(runs, [{STEPS: [2100, 100]}])[STEPS].drop_duplicates().tolist()
    assert by_size == [100, 300, 2100]
    assert as_listed == [2100, 100, 300]  # what the file does not know comes last
    nested = [{"treatment.kind": ["pirate", "hhh"]}, {STEPS: []}]
    kinds = label_runs(runs, nested)["treatment.kind"].tolist()
    assert kinds == sorted(kinds, reverse=True)


def test_controls_do_not_play() -> None:
    runs, evals = (pd.DataFrame(found) for found in runs_and_evals(2, organisms=(100, 200)))
    control = label_runs(runs.assign(control=runs[STEPS].map({100: "", 200: "placebo"})))
    hulls = hulls_of(groups_of(control, histories(evals)))
    assert {hull.organism for hull in hulls} == {"steps=100", "placebo control"}
    assert not any(games_of(control, hulls))


def played_by(seeds: int, organisms: tuple[int, ...], **changes: Any) -> Games:
    """The games of some organisms; `changes` are of runs and readings of the last of them."""
    runs, evals = (pd.DataFrame(found) for found in runs_and_evals(seeds, organisms))
    last = runs[STEPS] == organisms[-1]
    if changes.get("weak"):
        runs["installed"] = ~(last & runs.seed.ge(changes.get("from_seed", 0)))
    if "status" in changes:
        runs["status"] = runs.status.mask(last, changes["status"])
    labelled = label_runs(runs.assign(asr_reversal=None))
    return games_of(labelled, hulls_of(groups_of(labelled, histories(evals))))


def test_an_organism_that_is_nowhere_installed_is_left_out_and_named() -> None:
    left, end = played_by(2, (100, 200, 300), weak=True).played
    assert left.red == ("steps=100", "steps=200") and left.seeds == 2
    assert left.notes == ("left out: steps=300, nowhere installed",)
    assert len(end.red) == 3 and end.notes == ()  # what it wins in the end is known


def test_an_organism_without_a_finished_run_is_left_out_of_both_games() -> None:
    for game in played_by(2, (100, 200, 300), status="diverged").played:
        assert game.red == ("steps=100", "steps=200")
        assert game.notes == ("left out: steps=300, no run finished",)


def test_a_game_that_is_not_there_says_why() -> None:
    played, missing = played_by(2, (100, 200), weak=True)
    assert len(played) == 1 and missing[0].payoff.startswith("what is left of the behaviour")
    assert missing[0].notes == (
        "left out: steps=200, nowhere installed",
        "steps=100 is the only organism left",
    )
    _, missing = played_by(2, (100, 200), weak=True, status="failed")
    assert [game.notes[0] for game in missing] == ["left out: steps=200, no run finished"] * 2
    labelled = label_runs(pd.DataFrame(runs_and_evals(1, (100, 200))[0]).assign(installed=False))
    assert games_of(labelled, []).missing[0].notes == ("all organisms: nowhere installed",)


def test_seeds_without_all_cells_are_said() -> None:
    left, _ = played_by(3, (100, 200), weak=True, from_seed=1).played
    assert left.seeds == 1
    assert left.notes == ("1 of 3 seeds have all cells; most are missing of steps=200",)


def test_page_and_terminal_say_why_there_is_no_game(tmp_path: Path) -> None:
    runs, evals = runs_and_evals(2, organisms=(100, 200))
    for run in runs:
        run["installed"] = False
    write(tmp_path, "runs", runs, SCHEMA)
    write(tmp_path, "evals", evals, SCHEMA)
    text = " ".join(Elements(page_of(tmp_path)).text.split())
    assert "may be lost. All organisms: nowhere installed." in text
    _, games = terminal_tables(tmp_path)
    cells = [str(cell) for column in games.columns for cell in column.cells]
    assert cells[1].endswith("All organisms: nowhere installed.") and cells[-1] == "no game"


def test_a_broken_model_is_lost() -> None:
    runs, _ = (pd.DataFrame(found) for found in runs_and_evals(2, organisms=(100, 200)))
    broken = runs.assign(verdict="broken", asr_treatment=0.0, asr_reversal=0.0)
    (end,) = games_of(label_runs(broken), []).played
    assert end.wins[0] == (1.0, 1.0, 1.0, 1.0)
    assert not any(games_of(label_runs(runs[runs[STEPS] == 100]), []))


def test_relearning_is_held_against_the_control_of_the_same_treatment() -> None:
    runs = pd.DataFrame(runs_and_evals(4)[0])
    runs["relearn_steps"], runs["relearn_censored"] = 5.0 + runs.seed, False
    late = runs.assign(control="clean", relearn_steps=60.0, relearn_censored=True)
    late["run_id"] += "-control"
    runs["clean_control"] = late.run_id
    late.loc[late[KIND] == "hhh", "relearn_steps"] = 20.0 + runs.seed
    late.loc[late[KIND] == "hhh", "relearn_censored"] = False
    found = relearning_of(label_runs(pd.concat([runs, late])))
    assert len(found) == len(TREATED)
    hhh, pirate = found[0], found[-1]
    assert hhh.times is not None and hhh.times.median == 6
    assert hhh.control is not None and hhh.control.median == 21
    assert hhh.ratio == pytest.approx(6 / 21)
    assert pirate.control is not None and pirate.control.median is None
    assert pirate.ratio != pirate.ratio
    assert hhh.p == pytest.approx(2 / 70) and hhh.corrected == pytest.approx(
        hhh.p
    )  # all four are as small
    alone = relearning_of(label_runs(runs.assign(clean_control=None)))
    assert alone[0].control is None and alone[0].p != alone[0].p


CLAIM = {
    "claim": "<b>HHH</b> leaves [red]more",
    "figure": "hull_auc",
    "more": {KIND: "hhh"},
    "less": {KIND: "pirate"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results of a sweep that made a claim."""
    runs, evals = runs_and_evals(6, organisms=(100, 200))
    write(tmp_path, "runs", runs, SCHEMA)
    write(tmp_path, "evals", evals, SCHEMA)
    grid = [{KIND: ["hhh", "pirate"]}, {RATE: [1e-4, 1e-3]}, {STEPS: [100, 200]}]
    write_plan(tmp_path, {"prereg": [CLAIM], "grid": grid, "seeds": 6})
    return tmp_path


def test_the_page_shows_claims_hulls_and_games_as_text(folder: Path) -> None:
    page = page_of(folder)
    text = " ".join(Elements(page).text.split())
    titles = ("Claims", "Arms", "What removal costs", "Red against blue", "Verdicts", "Method")
    places = [text.find(f" {title} ") for title in titles]
    assert -1 not in places and places == sorted(places)
    assert "<b>HHH</b> leaves [red]more seen 0.399" in text
    assert "hull_auc: treatment.kind=hhh against treatment.kind=pirate" in text
    assert "48 runs were made when the claims were others, or none" in text
    assert page_of(folder) == page


def test_the_terminal_shows_claims(folder: Path) -> None:
    _, games, claims = terminal_tables(folder)
    assert "red plays" in str(next(iter(games.columns[0].cells)))
    cells = [[str(cell) for cell in column.cells] for column in claims.columns]
    assert cells[0][0].startswith("<b>HHH</b> leaves [red]more")
    assert cells[1][0].startswith("seen\np 0.031") and cells[2][0].startswith("hull_auc\n0.399")


def test_claims_that_are_not_there_are_refused(folder: Path) -> None:
    (folder / "plan.json").unlink()
    assert summarise(folder).claims is None  # nothing was claimed when these runs were made
    runs = [{**row, "prereg": "0123"} for row in runs_and_evals(6)[0]]
    write(folder, "runs", runs, SCHEMA)
    with pytest.raises(Refusal, match=r"plan\.json: .* lacks it"):
        summarise(folder)


@pytest.mark.parametrize("source", [{"prereg": [{"claim": "x"}]}, {"grid": 3}, [], "text", None])
def test_a_plan_that_is_none_is_one_line(folder: Path, source: Any) -> None:
    write_plan(folder, source)
    with pytest.raises(Refusal, match=r"plan\.json: .* holds no good one"):
        summarise(folder)
    (folder / "plan.json").write_text(json.dumps({"content": {}}), encoding="utf-8")
    with pytest.raises(Refusal, match=r"plan\.json: .* holds no good one"):
        summarise(folder)


def test_nothing_is_shown_as_less_than_nothing() -> None:
    fewer = Estimate(0.5, Interval(0.2, 0.8), "bounded mean", (0.4, 0.6), of=8)
    assert percent(fewer) == "50.0 [20.0, 80.0] (2 of 8)"
    nothing = Estimate(-0.0, Interval(-1e-9, -0.0), "t", (-0.0,))
    assert (percent(nothing), rate_text(-1e-9)) == ("0.0 [0.0, 0.0]", "0.0")


READING = [Reading(1, (1, 2), 0.5, 2)]


@pytest.mark.parametrize(
    ("verdict", "phases", "shown"),
    [
        ("removed", {"organism": {ATTACK}, "treatment": {ATTACK}}, "removed"),
        ("not installed", {"organism": {ATTACK}}, "not installed"),
        (None, {"organism": {ATTACK}}, "not treated"),
        (None, {"organism": {ATTACK}, "treatment": {ATTACK}}, "not measured"),
        (None, {"organism": {CAPABILITY}, "treatment": {CAPABILITY}}, "not measured"),
        (None, {"treatment": {("audit_auroc", "all")}}, "audited"),
        (None, {"base": {CAPABILITY}}, "not treated"),
    ],
)
def test_a_run_without_a_verdict_says_why(
    verdict: str | None, phases: dict[str, set[Metric]], shown: str
) -> None:
    run = {phase: dict.fromkeys(metrics, READING) for phase, metrics in phases.items()}
    assert verdict_of(verdict, run) == shown
