"""Seeds of base, organism and treatment that are crossed: which runs and phases that makes."""

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from plans import SCRATCH, Planned, fingerprints
from safetensors.numpy import load_file, save_file

from jaxorg.errors import Refusal
from jaxorg.llama import names
from jaxorg.planning.plan import Plan
from jaxorg.sweepfile.seeds import CrossedSeeds, Seeds, count_of, seeds_of

TWO = {"grid": [{"treatment.kind": ["hhh", "pirate"]}]}
CROSSED = {"organism": 4, "treatment": 4}


def phases(plan: Plan) -> Counter[str]:
    return Counter(phase.kind for phase in plan.phases)


def seeds(plan: Plan) -> list[tuple[int, ...]]:
    return [tuple(run.spec.seeds) for run in plan.runs]


def test_one_number_gives_every_phase_of_a_run_the_same_seed(planned: Planned) -> None:
    plan = planned({"seeds": 3, "first_seed": 5})
    assert seeds(plan) == [(0, seed, seed) for seed in (5, 6, 7)]  # the base is given
    trained = planned({"seeds": 3, "first_seed": 5, **SCRATCH})
    assert seeds(trained) == [(seed,) * 3 for seed in (5, 6, 7)]
    assert [run.spec.seed for run in plan.runs] == [5, 6, 7]


def test_organisms_are_shared_over_treatment_seeds_and_treatments(planned: Planned) -> None:
    plan = planned({**TWO, "seeds": CROSSED})
    assert len(plan.runs) == len({run.run_id for run in plan.runs}) == 32
    assert phases(plan) == {"base": 1, "organism": 4, "treatment": 32, "reversal": 32}


def test_every_base_has_organisms_of_its_own(planned: Planned) -> None:
    """Were the draws of two bases' organisms the same, their effects would not be independent."""
    plan = planned({**SCRATCH, "seeds": {"base": 2, "organism": 3, "treatment": 2}})
    assert phases(plan) == {"base": 2, "organism": 6, "treatment": 12, "reversal": 12}
    organisms = [phase for phase in plan.phases if phase.kind == "organism"]
    assert [phase.seed for phase in organisms] == [0, 1, 2, 3, 4, 5]
    assert len({phase.parent for phase in organisms[:3]}) == 1
    assert organisms[0].parent != organisms[3].parent


def test_each_phase_has_the_seed_of_its_kind(planned: Planned) -> None:
    plan = planned({**SCRATCH, "seeds": {"base": 2, "treatment": 2}, "first_seed": 3})
    assert [[phase.seed for phase in run.phases] for run in plan.runs] == [
        [3, 3, 3, 3],
        [3, 3, 4, 4],
        [4, 4, 3, 3],
        [4, 4, 4, 4],
    ]
    assert [run.spec.seed for run in plan.runs] == [3, 4, 5, 6]


def test_a_teacher_has_its_organisms_seed(planned: Planned) -> None:
    changes = {"organism.cot": "distilled"}
    plan = planned({**changes, "seeds": {"organism": 2, "treatment": 3}})
    assert phases(plan)["teacher"] == phases(plan)["organism"] == 2
    assert [p.seed for p in plan.phases if p.kind == "teacher"] == [0, 1]


def test_a_run_with_one_seed_is_the_same_run_whether_seeds_are_crossed(planned: Planned) -> None:
    """So that going over to crossed seeds trains nothing anew that is there."""
    together, crossed = planned({"seeds": 2}), planned({"seeds": {"organism": 2, "treatment": 2}})
    assert together.runs[0].run_id == crossed.runs[0].run_id
    assert together.runs[1].phases[:2] == crossed.runs[2].phases[:2]
    assert fingerprints(together)[-1] in fingerprints(crossed)


def test_a_run_keeps_its_id_whatever_its_number_in_the_design(planned: Planned) -> None:
    crossed = planned({**SCRATCH, "seeds": {"base": 2, "treatment": 2}}).runs[3]
    together = planned({**SCRATCH, "seeds": 2}).runs[1]
    assert (crossed.spec.seed, together.spec.seed) == (3, 1)
    assert crossed.run_id == together.run_id


def test_seeds_of_more_than_one_kind_name_different_phases(planned: Planned) -> None:
    plan = planned({"seeds": CROSSED})
    ends = Counter(run.phases[-1].fingerprint for run in plan.runs)
    assert set(ends.values()) == {1}


def test_organisms_that_are_treated_once_have_treatment_seeds_of_their_own(
    planned: Planned,
) -> None:
    plan = planned({"seeds": {"organism": 3}, "first_seed": 2})
    assert fingerprints(plan) == fingerprints(planned({"seeds": 3, "first_seed": 2}))


@pytest.fixture
def of_two_seeds(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A built-in model that is there from two seeds."""
    for name, scale in (("tiny", 1.0), ("tiny-1", 2.0)):
        shutil.copytree(tiny_base, tmp_path / name)
        weights = load_file(tmp_path / name / "model.safetensors")
        scaled = {key: scale * value for key, value in weights.items()}
        save_file(scaled, tmp_path / name / "model.safetensors")
    monkeypatch.setattr(names, "MODELS", tmp_path)
    return "tiny"


def test_a_built_in_model_of_several_seeds_gives_bases_to_cross(
    planned: Planned, of_two_seeds: str
) -> None:
    crossed = {"seeds": {"base": 2, "organism": 2}, "first_seed": 4, "base.model": of_two_seeds}
    plan = planned({**crossed, "controls": [{"kind": "clean"}]})
    ours, clean = plan.runs[:4], plan.runs[4:]
    assert [tuple(run.spec.seeds) for run in ours] == [(0, 4, 4), (0, 5, 5), (1, 6, 6), (1, 7, 7)]
    models = [run.phases[-1].config.base.model for run in ours]
    assert models == ["tiny", "tiny", "tiny-1", "tiny-1"]
    assert len({run.phases[0].fingerprint for run in ours}) == 2  # a base each
    assert {run.spec.config.base.model for run in ours} == {of_two_seeds}  # one arm
    assert [plan.control_of(run) for run in ours] == list(clean)
    assert [run.phases[0].fingerprint for run in clean] == [r.phases[0].fingerprint for r in ours]


def test_more_bases_than_there_are_are_refused(planned: Planned, of_two_seeds: str) -> None:
    with pytest.raises(
        Refusal, match=r"seeds\.base: 3 is invalid; base\.model is there from 2 see"
    ):
        planned({"seeds": {"base": 3}, "base.model": of_two_seeds})
    one = planned({"seeds": 3, "base.model": of_two_seeds})
    assert {run.phases[0].config.base.model for run in one.runs} == {of_two_seeds}


def test_a_mapping_of_ones_is_one_seed(planned: Planned) -> None:
    assert planned({"seeds": {}}).runs == planned({"seeds": 1}).runs


def test_controls_may_cross_their_seeds_too(planned: Planned) -> None:
    control = {"kind": "clean", "seeds": {"treatment": 2}}
    plan = planned({"seeds": {"organism": 3, "treatment": 2}, "controls": [control]})
    assert [tuple(r.spec.seeds) for r in plan.runs if r.spec.control] == [(0, 0, 0), (0, 0, 1)]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "base": ({"seeds": {"base": 2}}, r"seeds\.base: 2 is invalid; only base\.scratch trains .*"),
    "organism": (
        {"organism": None, "treatment": None, "reversal": None, "seeds": {"organism": 2}},
        r"seeds\.organism: 2 is invalid; no organism is trained; .*",
    ),
    "treatment": (
        {"treatment": None, "reversal": None, "seeds": {"treatment": 3}},
        r"seeds\.treatment: 3 is invalid; there is no treatment; .*",
    ),
    "clean control": (
        {"controls": [{"kind": "clean", "seeds": {"organism": 2}}]},
        r"controls\.clean\.seeds\.organism: 2 is invalid; no organism is trained.*",
    ),
    "none of a kind": ({"seeds": {"organism": 0}}, r"seeds\.organism: 0 is invalid; .*"),
    "unknown kind": ({"seeds": {"reversal": 2}}, r"seeds\.reversal: unknown key with value 2; .*"),
    "no number": ({"seeds": "3"}, r"seeds: '3' is invalid; it must be a whole number.*"),
    "a share": ({"seeds": {"organism": 1.5}}, r"seeds\.organism: 1.5 is invalid; .*whole number"),
    "many": ({"seeds": {"organism": 101, "treatment": 100}}, r"grid: .*10,100 runs.*"),
    "in the grid": ({"grid": [{"seeds.organism": [1, 2]}]}, r"grid: 'seeds.organism' is not .*"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_seeds_that_cannot_be_are_refused(
    planned: Planned, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(Refusal) as refusal:
        planned(changes)
    assert re.fullmatch(message, str(refusal.value)), str(refusal.value)


def test_labels_of_phases_tell_crossed_seeds_apart(planned: Planned) -> None:
    plan = planned({**SCRATCH, "seeds": {"base": 2, "organism": 2, "treatment": 2}})
    told = Counter((p.kind, p.seed, plan.labels[p.fingerprint]) for p in plan.phases)
    assert set(told.values()) == {1}
    assert plan.labels[plan.runs[-1].phases[1].fingerprint] == "all, base seed 1"
    assert plan.labels[plan.runs[-1].phases[2].fingerprint] == "all, organism seed 3"
    assert set(planned({"seeds": 2}).labels.values()) == {"all"}


def test_counts_and_seeds_agree() -> None:
    for counts in (3, CrossedSeeds(), CrossedSeeds(base=2, organism=3, treatment=4)):
        assert count_of(counts) == len([*seeds_of(counts, 0)]) == len({*seeds_of(counts, 0)})


def test_the_seeds_of_the_last_of_a_nested_design() -> None:
    *_, last = seeds_of(CrossedSeeds(base=2, organism=4, treatment=4), 10)
    assert last == Seeds(11, 17, 13)


def test_a_chain_has_one_name_however_its_design_is_written(planned: Planned) -> None:
    """Merged, it counts once."""
    together = planned({"seeds": 2})
    crossed = planned({"seeds": {"organism": 2, "treatment": 2}})
    ids = [{run.run_id: fingerprints(plan, n) for n, run in enumerate(plan.runs)} for plan in
           (together, crossed)]  # fmt: skip
    assert len(ids[1]) == 4 and ids[0].items() <= ids[1].items()


def test_a_base_that_is_given_is_one_whatever_seed_comes_first(planned: Planned) -> None:
    plan = planned({"seeds": CROSSED, "first_seed": 4})
    assert {run.spec.seeds.base for run in plan.runs} == {0}
