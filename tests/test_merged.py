"""Results of several folders that were copied into one: each run counts once, and only runs alike
are pooled."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_report import SCHEMA, Elements, Row, build, eval_rows, page_of, run_rows, write
from test_summary import KIND, RATE, STEPS, runs_and_evals

from jaxorg.errors import Refusal
from jaxorg.summary import ATTACK, summarise
from jaxorg.summary.claims import claims_of
from jaxorg.summary.hulls import groups_of
from jaxorg.summary.relearning import relearning_of
from jaxorg.summary.tables import RUNS, histories, label_runs, read_table
from jaxorg.sweepfile.prereg import Declared


def add(folder: Path, table: str, rows: list[Row]) -> None:
    """Copy another folder's part file in."""
    part = pa.Table.from_pylist(rows).replace_schema_metadata(SCHEMA)
    pq.write_table(part, folder / table / "other.parquet")


def test_a_run_that_two_folders_have_counts_once(tmp_path: Path) -> None:
    build(tmp_path, seeds=3)
    alone = summarise(tmp_path)
    elsewhere = {"chip_seconds": 9.0, "device": "gpu", "git_commit": "def"}
    add(tmp_path, "runs", [{**row, **elsewhere} for row in run_rows(2)])
    add(tmp_path, "evals", list(eval_rows(2)))
    both = summarise(tmp_path)
    assert both.runs == alone.runs and both.arms == alone.arms and both.curves == alone.curves
    assert [arm.seeds for arm in both.arms] == [3, 3]
    assert both.hulls == alone.hulls and both.samples == alone.samples


def test_more_seeds_of_the_same_arm_are_pooled(tmp_path: Path) -> None:
    build(tmp_path, seeds=2)
    add(tmp_path, "runs", list(run_rows(4)))
    add(tmp_path, "evals", list(eval_rows(4)))
    (arm, *_) = summarise(tmp_path).arms
    found = arm.final("treatment", ATTACK)
    assert arm.seeds == 4 and found is not None and len(found.points) == 4


@pytest.mark.parametrize(
    ("table", "changed", "named"),
    [
        ("runs", {"aurc": 0.6}, "aurc"),
        ("runs", {"status": "failed", "error": "no"}, "status, error"),
        ("runs", {"prereg": "0123"}, "prereg"),  # was it made before the claims, or after?
        ("runs", {"config": '{"length": 3}'}, "config"),
        ("evals", {"k": 7, "value": 0.07}, "k, value"),
    ],
)
def test_a_run_with_other_results_in_another_folder_is_refused(
    tmp_path: Path, table: str, changed: Row, named: str
) -> None:
    build(tmp_path, seeds=2)
    rows = run_rows(2) if table == "runs" else eval_rows(2)
    add(tmp_path, table, [{**next(iter(rows)), **changed}])
    with pytest.raises(Refusal, match=rf"^run_id: hhh-0 stands in {table} twice, .* {named};"):
        summarise(tmp_path)
    assert not (tmp_path / "report.html").exists()


def config(**changes: Any) -> str:
    plain = {"length": 44, "treatment": {"kind": "hhh", "train": {"steps": 5}, "label": ""}}
    return json.dumps({**plain, "treatment": {**plain["treatment"], **changes}})


def test_settings_off_the_grid_tell_arms_apart(tmp_path: Path) -> None:
    """And fields of the grid that a label hides, if it means something else in another folder."""
    build(tmp_path, seeds=4)
    rows = [
        {**row, "config": config(train={"steps": 5 if row["seed"] < 2 else 50})}
        for row in run_rows(4)
        if row["arm"] == "hhh"
    ]
    write(tmp_path, "runs", rows, SCHEMA)
    arms = summarise(tmp_path).arms
    assert [(arm.label, arm.seeds) for arm in arms] == [("hhh · steps=5", 2), ("hhh · steps=50", 2)]
    assert "hhh · steps=50" in Elements(page_of(tmp_path)).text
    known = [{**row, "treatment.train.steps": [5, 50][row["seed"] // 2]} for row in rows]
    write(tmp_path, "runs", known, SCHEMA)
    assert [arm.label for arm in summarise(tmp_path).arms] == ["hhh · steps=5", "hhh · steps=50"]


@pytest.mark.parametrize(
    ("one", "other", "labels"),
    [
        ({}, {}, ["arm"]),
        ({"label": "HHH"}, {"label": "other name"}, ["arm"]),  # a name changes nothing
        ({}, {"refresh": 3}, ["arm", "arm · refresh=3"]),
        ({"lora": None}, {"lora": {"rank": 8}}, ["arm", "arm · rank=8"]),
        ({"scales": [1]}, {"scales": [1, 2]}, ["arm · scales=[1]", "arm · scales=[1, 2]"]),
        ({"mark": "a b"}, {"mark": "2"}, ["arm · mark=2", 'arm · mark="a b"']),
        ({"share": 1}, {"share": 0.5}, ["arm · share=0.5", "arm · share=1"]),
    ],
)
def test_configs_are_compared_by_what_they_say(one: Row, other: Row, labels: list[str]) -> None:
    (row, *_) = run_rows(1)
    row["arm"] = "arm"
    configs = (config(**one), config(**other))
    runs = pd.DataFrame([{**row, "run_id": c, "config": c} for c in configs])
    assert sorted(label_runs(runs).label.unique()) == sorted(labels)


def test_names_that_people_gave_tell_arms_apart_and_others_stay_short() -> None:
    """The clean controls of two organisms have one label; the organisms have their own already."""
    (row, *_) = run_rows(1)
    rows = [
        {
            **row,
            "run_id": f"{control}{name}",
            "arm": "plain" if control else f"{name} × plain",
            "control": control,
            "organism.label": name,
            "config": json.dumps({"organism": {"kind": name, "label": name}}),
        }
        for control in ("", "clean")
        for name in ("sandbagger", "faker")
    ]
    assert sorted(label_runs(pd.DataFrame(rows)).label) == [
        "faker × plain",
        "plain · clean control · faker",
        "plain · clean control · sandbagger",
        "sandbagger × plain",
    ]
    for each in rows:
        if each["organism.label"] == "faker":  # two names, one organism
            each["config"] = rows[0]["config"]
    assert sorted({*label_runs(pd.DataFrame(rows)).label}) == [
        "faker × plain",
        "plain · clean control",
        "sandbagger × plain",
    ]


def test_what_is_off_the_grid_is_neither_pooled_in_hulls_nor_paired() -> None:
    rows, evals = runs_and_evals(2)
    for row in rows:
        row["config"] = config(answers=["own", "on-policy"][row["seed"]])
    runs, measured = label_runs(pd.DataFrame(rows)), histories(pd.DataFrame(evals))
    grid = [{KIND: ["hhh", "pirate"]}, {RATE: [1e-4, 1e-3]}, {STEPS: [100]}]
    groups = groups_of(runs, measured, grid)
    assert {group.settings["treatment.answers"] for group in groups} == {"own", "on-policy"}
    assert len({group.treatment for group in groups}) == 4
    claim = {"claim": "c", "figure": "aurc", "more": {KIND: "hhh"}, "less": {KIND: "pirate"}}
    declared = Declared.model_validate({"grid": grid, "seeds": 2, "prereg": [claim]})
    others = runs.assign(**{"treatment.answers": ["own"] * 4 + ["on-policy"] * 4}, seed=0)
    found = claims_of(declared, [], others[others[KIND].ne("hhh") | others.seed.eq(0)], groups)
    assert found is not None and found.outcomes[0].pairs < 8
    assert relearning_of(runs)  # a control must have the same


def test_a_config_that_is_no_json_is_one_line(tmp_path: Path) -> None:
    rows = [{**row, "config": "{" * (2000 + row["seed"])} for row in run_rows(2)]
    write(tmp_path, "runs", rows, SCHEMA)
    with pytest.raises(Refusal, match=r"config: '\{+' is not JSON"):
        summarise(tmp_path)


def test_a_grid_field_of_different_types_in_two_folders_becomes_text(tmp_path: Path) -> None:
    mixed = {0: 1, 1: "[1, 2]", 2: 2.5, 3: True}
    (tmp_path / "runs").mkdir()
    for seed, value in mixed.items():
        rows = [{**row, "repeats": value} for row in run_rows(4) if row["seed"] == seed]
        part = pa.Table.from_pylist(rows).replace_schema_metadata(SCHEMA)
        pq.write_table(part, tmp_path / "runs" / f"{seed}.parquet")
    runs = read_table(tmp_path, "runs", RUNS)
    assert set(runs.repeats) == {"1", "[1, 2]", "2.5", "true"}
