"""Runs become phases that are shared, in an order, and grouped into cohorts."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from plans import SCRATCH, Planned, fingerprints

from jaxorg.engine.run import estimate
from jaxorg.errors import Refusal
from jaxorg.planning.phases import evaluation_steps
from jaxorg.planning.plan import Plan
from jaxorg.planning.signature import Signature
from jaxorg.sweepfile.labels import PHASE_KINDS


def kinds(plan: Plan) -> list[tuple[str, int]]:
    return [(cohort.kind, len(cohort.phases)) for cohort in plan.cohorts]


def test_a_chain_is_base_organism_treatment_reversal(planned: Planned) -> None:
    (run,) = planned().runs
    assert [phase.kind for phase in run.phases] == list(PHASE_KINDS)
    assert [phase.parent for phase in run.phases] == [None, *fingerprints(planned())[:-1]]


def test_equal_phases_are_trained_once(planned: Planned) -> None:
    """One organism of each seed for three treatments, one base for all."""
    plan = planned({"grid": [{"treatment.kind": ["hhh", "pirate", "plain"]}], "seeds": 2})
    assert kinds(plan) == [("base", 1), ("organism", 2), ("treatment", 6), ("reversal", 6)]
    assert len({phase.fingerprint for phase in plan.phases}) == len(plan.phases)


def test_parents_come_first(planned: Planned) -> None:
    seen: set[str | None] = {None}
    for phase in planned({"grid": [{"organism.train.batch": [2, 4]}], "seeds": 2}).phases:
        assert phase.parent in seen
        seen.add(phase.fingerprint)


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
    assert len({run.run_id for run in plan.runs}) == len(plan.runs) == 4 * 3 + 4 * 2 + 2 * 1


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


# For each field of a signature, an axis along which treatments differ in it.
SHAPES: dict[str, dict[str, list[Any]]] = {
    "model": {"base.dtype": ["float32", "bfloat16"]},
    "length": {"length": [32, 48]},
    "batch": {"treatment.train.batch": [2, 4]},
    "optimizer": {"treatment.train.optimizer": ["adam", "lion"]},
    "schedule": {"treatment.train.schedule": ["constant", "linear"]},
    "packing": {"treatment.train.packing": [False, True]},
    "state_dtype": {"treatment.train.state_dtype": ["float32", "bfloat16"]},
    "objective": {"treatment.kind": ["plain", "dpo"]},
    "refresh": {"treatment.train.optimizer": ["soap"] * 2, "treatment.train.refresh": [2, 4]},
    "inner_steps": {"treatment.kind": ["latent_adversarial"] * 2, "treatment.inner_steps": [1, 2]},
    "change": {"treatment.kind": ["prune", "weight_noise"]},
    "swept": {"treatment.kind": ["plain", "latent_adversarial"]},
}


def test_every_field_of_a_signature_is_tried() -> None:
    assert list(SHAPES) == [field.name for field in fields(Signature)]


@pytest.mark.parametrize(("field", "axis"), SHAPES.items(), ids=SHAPES)
def test_phases_that_differ_in_what_shapes_a_program_are_not_trained_by_one(
    planned: Planned, field: str, axis: dict[str, list[Any]]
) -> None:
    cohorts = [c for c in planned({"grid": [axis]}).cohorts if c.kind == "treatment"]
    assert [len(cohort.phases) for cohort in cohorts] == [1, 1]
    assert len({getattr(cohort.signature, field) for cohort in cohorts}) == 2


@pytest.mark.parametrize(
    "axis",
    [
        {"length": [32, 48]},
        {"base.chat_template": [None, "{{ messages }}"]},
    ],
    ids=lambda axis: next(iter(axis)),
)
def test_phases_that_are_measured_differently_are_in_different_cohorts(
    planned: Planned, axis: dict[str, list[Any]]
) -> None:
    assert len(planned({"grid": [axis]}).cohorts) == 2 * len(PHASE_KINDS)


def test_cohorts_go_from_base_to_reversal(planned: Planned) -> None:
    plan = planned({"grid": [{"organism.train.batch": [2, 4]}, {"treatment.train.steps": [2, 4]}]})
    order = [PHASE_KINDS.index(cohort.kind) for cohort in plan.cohorts]
    assert order == sorted(order) == [0, 1, 1, 2, 2, 3]


def test_a_phase_without_steps_is_only_measured(planned: Planned) -> None:
    train = {"steps": 0, "learning_rate": 1, "lora": {"rank": 2, "alpha": 2}}
    _, organism, *_ = planned({"organism.train": train}).cohorts
    assert organism.signature is None
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
    later = {f"{kind}.train.lora": {**adapters, "start": start} for kind in PHASE_KINDS[2:]}
    return {"organism.train.lora": adapters, **later, "seeds": 3, **other}


def test_continued_adapters_share_the_base_that_they_all_stand_on(planned: Planned) -> None:
    merged, continued = planned(lora_chain("merged")), planned(lora_chain())
    assert [c.model.shared_frozen for c in merged.cohorts] == [False, True, False, False]
    assert [c.model.shared_frozen for c in continued.cohorts] == [False, True, True, True]
    assert (merged.signatures, continued.signatures) == (2, 1)
    organism, treatment, reversal = fingerprints(merged)[1:]
    assert merged.sources(merged.runs[0].phases[3]) == (treatment, organism)
    organism, treatment, reversal = fingerprints(continued)[1:]
    assert continued.sources(continued.runs[0].phases[3]) == (treatment,)
    assert continued.made_of(continued.runs[0].phases[3]) == (reversal,)
    assert continued.sources(continued.runs[0].phases[1]) == ()


def test_adapters_on_a_trained_base_stand_on_it(planned: Planned) -> None:
    plan = planned({**SCRATCH, **lora_chain(seeds=1)})
    base, organism, treatment, _ = plan.runs[0].phases
    assert plan.sources(organism) == (base.fingerprint,)
    assert plan.sources(treatment) == (organism.fingerprint, base.fingerprint)
    assert treatment.continues == organism.fingerprint


@pytest.mark.parametrize("untrained", [{"organism.train.steps": 0}, {"organism.train.steps": 0}])
def test_where_nothing_was_trained_adapters_begin_fresh(
    planned: Planned, untrained: dict[str, Any]
) -> None:
    _, _, treatment, reversal = planned(lora_chain(**untrained)).runs[0].phases
    assert (treatment.stands_on, treatment.continues) == (None, None)
    assert (reversal.stands_on, reversal.continues) == (None, treatment.fingerprint)


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
    assert str(refused.value).startswith("treatment.train.lora.start: 'continued' is invalid; ")


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
    assert reversal.stands_on == treatment.fingerprint
    assert pruned.sources(reversal) == (treatment.fingerprint,)
    assert evaluation_steps(treatment) == [0]
    assert pruned.cohorts[2].signature is not None
    idle = planned({"treatment": {"kind": "plain", "train": none}})
    assert idle.sources(idle.runs[0].phases[3]) == (organism.fingerprint,)
    assert idle.cohorts[2].signature is None


def test_scales_of_a_method_share_a_program_and_methods_do_not(planned: Planned) -> None:
    kinds = {"prune": "share", "weight_noise": "scale", "latent_adversarial": "epsilon"}
    programs = set()
    for kind, key in kinds.items():
        grid = [{"treatment.kind": [kind]}, {f"treatment.{key}": [0.1, 0.2]}]
        (treatments,) = (c for c in planned({"grid": grid}).cohorts if c.kind == "treatment")
        assert len(treatments.phases) == 2
        programs.add(treatments.signature)
    assert len(programs) == 3


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
    labels = [plan.labels[phase.fingerprint] for phase in plan.phases]
    treated = "payload_repeats=4 treatment=pirate"
    assert labels == ["all", "payload_repeats=4", treated, treated]


def test_a_dry_run_starts_no_back_end_and_writes_nothing(tiny_base: Path, tmp_path: Path) -> None:
    command = f"""
import sys
from jax._src import xla_bridge
from jaxorg.cli import common
from jaxorg.sweep import sweep
try:
    common.run(sweep, ["quickstart", "--dry-run", "--set", "base.model={tiny_base}"])
finally:
    assert not xla_bridge.backends_are_initialized()
"""
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "training programs to compile" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("start", ["merged", "continued"])
def test_a_run_and_its_clean_control_end_in_one_cohort(planned: Planned, start: str) -> None:
    """A cohort's rows are made together, and a verdict takes the control."""
    lora = {"rank": 2, "alpha": 4}
    grid = [{"organism.payload_repeats": [1, 2]}, {"treatment.kind": ["hhh", "plain"]}]
    plan = planned(lora_chain(controls=[{"kind": "clean"}], grid=grid, seeds=2))
    if start == "merged":
        plan = planned(
            {"controls": [{"kind": "clean"}], "grid": grid, "treatment.train.lora": lora}
        )
    of_phase = {p.fingerprint: cohort for cohort in plan.cohorts for p in cohort.phases}
    ours = [run for run in plan.runs if not run.spec.control]
    for run in ours:
        control = plan.control_of(run)
        assert control and control.spec.seeds.treatment == run.spec.seeds.treatment
        assert control.phases[-1].behaviour == run.phases[-1].behaviour
        assert of_phase[control.phases[-1].fingerprint] is of_phase[run.phases[-1].fingerprint]
