"""What a setting is to the program is said once, at its field, and is so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from plans import Planned
from pydantic import BaseModel
from reds import least

from jaxorg import optimizers
from jaxorg.cli.console import Console
from jaxorg.config import role_of
from jaxorg.planning.phases import Cohort
from jaxorg.sweepfile import roles
from jaxorg.sweepfile.run_config import Base, RunConfig
from jaxorg.sweepfile.training import Lora, Training
from jaxorg.treatments import TREATMENTS, Treatment

DOCS = (Path(__file__).parents[1] / "docs" / "sweep-files.md").read_text(encoding="utf-8")
TRAIN = {"steps": 8, "batch": 4, "examples": 16, "learning_rate": 1e-3}
# Another value of every field that has a role, by its path.
OTHERS: Mapping[str, Any] = {
    "length": 56,
    "base.dtype": "bfloat16",
    "base.remat": True,
    "treatment.train.batch": 8,
    "treatment.train.schedule": "cosine",
    "treatment.train.optimizer": "sgd",
    "treatment.train.packing": True,
    "treatment.train.refresh": 5,
    "treatment.train.state_dtype": "bfloat16",
    "treatment.train.learning_rate": 1e-2,
    "treatment.train.warmup": 0.5,
    "treatment.train.clip": 2.0,
    "treatment.train.hyper": {"b1": 0.5},
    "treatment.train.lora.rank": 8,
    "treatment.train.lora.alpha": 3.0,
    "treatment.train.lora.targets": ["q"],
    "treatment.beta": 0.5,
    "treatment.kl": 0.5,
    "treatment.ratio_clip": 0.5,
    "treatment.scale": 0.5,
    "treatment.share": 0.5,
    "treatment.layer": 1,
    "treatment.epsilon": 0.5,
    "treatment.inner_steps": 5,
}
KINDS = {
    "beta": "dpo",
    "kl": "rl",
    "ratio_clip": "rl",
    "scale": "weight_noise",
    "share": "prune",
    "layer": "latent_adversarial",
    "epsilon": "latent_adversarial",
    "inner_steps": "latent_adversarial",
}


def with_roles(model: type[BaseModel], above: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        role = role_of(field)
        if role and role.does != "measured":
            yield above + name


def test_every_field_with_a_role_is_tried_below() -> None:
    places: dict[str, type[BaseModel]] = {
        "": RunConfig,
        "base.": Base,
        "treatment.train.": Training,
        "treatment.train.lora.": Lora,
    }
    found = {path for above, model in places.items() for path in with_roles(model, above)}
    found |= {path for made in TREATMENTS for path in with_roles(made, "treatment.")}
    assert found == set(OTHERS)


@pytest.mark.parametrize("path", OTHERS)
def test_what_shapes_a_program_makes_another_one_and_what_is_swept_does_not(
    path: str, planned: Planned
) -> None:
    train: dict[str, Any] = {**TRAIN}
    if ".lora." in path or path == "base.dtype":
        train["lora"] = {"rank": 4, "alpha": 8.0}
    if path.endswith(".refresh"):
        train["optimizer"] = "soap"
    kind = KINDS.get(path.rpartition(".")[2], "plain")
    treatment = {"treatment": {"kind": kind, "train": train}, "reversal": None}
    if path.endswith(".layer"):
        treatment["base.model"] = "jaxorg-250k"  # of more than one
    before, after = (
        _of_treatment(planned({"prompts.new_tokens": 4, **treatment, **change}).cohorts)
        for change in ({}, {path: OTHERS[path]})
    )
    role = roles.role_at(path)
    assert role is not None
    if not path.endswith(".rank"):  # of which the largest in a cohort is compiled in
        assert (before.signature == after.signature) == (role.does != "shapes")
    swept = [cohort.phases[0].swept for cohort in (before, after)]
    if role.does != "shapes":
        assert swept[0] != swept[1]
    if role.does == "swept" and ".lora." not in path:
        name = role.name or path.rpartition(".")[2]
        assert {n for n in swept[0] if swept[0][n] != swept[1][n]} == {name}
        assert swept[1][name] == OTHERS[path]


def _of_treatment(cohorts: tuple[Cohort, ...]) -> Cohort:
    (cohort,) = (cohort for cohort in cohorts if cohort.kind == "treatment")
    return cohort


@pytest.mark.parametrize("made", TREATMENTS)
def test_no_treatment_sweeps_by_a_name_that_training_uses(made: type[Treatment]) -> None:
    """With one name, Muon would have had DPO's `beta`."""
    kind = made.model_fields["kind"].annotation.__args__[0]  # type: ignore[union-attr]
    for optimizer in optimizers.FAMILIES:
        made.model_validate(least(kind, {**TRAIN, "optimizer": optimizer}))


def test_a_treatment_that_sweeps_by_such_a_name_is_refused(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Treatment, "swept", lambda self: {"beta": 0.1})
    planned()
    with pytest.raises(Exception, match="its beta is not that of hhh"):
        planned({"treatment.train.optimizer": "muon"})


@pytest.mark.parametrize(
    ("path", "does"),
    [
        ("treatment.train.hyper.b1", "swept"),
        ("base.scratch.batch", "shapes"),
        ("evaluate", "measured"),
        ("treatment.kind", ""),
        ("organism", ""),
        ("organism.train.steps", ""),
        ("organism.trigger", ""),
    ],
)
def test_a_role_is_found_at_a_path(path: str, does: str) -> None:
    role = roles.role_at(path)
    assert (role.does if role else "") == does


def test_the_paths_of_a_grid_are_told_apart() -> None:
    paths = ["treatment.kind", "organism.train.batch", "organism.train.hyper.b1", "length"]
    assert roles.described(paths) == (
        "swept as arrays: organism.train.hyper.b1; compiled in: organism.train.batch, length"
    )
    assert roles.described(["treatment.kind"]) == ""


def test_the_dry_run_says_what_the_paths_of_the_grid_are(
    planned: Planned, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = [{"treatment.train.learning_rate": [1e-3, 1e-2], "treatment.kind": ["hhh", "plain"]}]
    Console(planned({"grid": grid})).print_plan(2, "final", None)
    said = "grid: swept as arrays: treatment.train.learning_rate\n"
    assert said in capsys.readouterr().out
    Console(planned()).print_plan(2, "final", None)
    assert "grid:" not in capsys.readouterr().out


@pytest.mark.parametrize(("head", "model"), [("### `train`", Training), ("#### LoRA", Lora)])
def test_the_tables_of_the_documentation_say_the_same(head: str, model: type[BaseModel]) -> None:
    section = DOCS.partition(f"{head}\n")[2].partition("| key ")[2].partition("\n\n")[0]
    told = dict(re.findall(r"^\| `(\w+)` \|(?: [^|]* \|){2} ([^|]+) \|", section, re.MULTILINE))
    found = {name: role_of(field) for name, field in model.model_fields.items()}
    assert told == {name: role.does if role else "–" for name, role in found.items()}


def test_what_treatments_sweep_is_said_in_their_documentation() -> None:
    text = (Path(__file__).parents[1] / "docs" / "treatments.md").read_text(encoding="utf-8")
    told = {
        name
        for sentence in re.findall(r"((?:`\w+`[, and]+)+`\w+`) are swept", text)
        for name in re.findall(r"`(\w+)`", sentence)
    }
    swept = {
        name
        for made in TREATMENTS
        for name, field in made.model_fields.items()
        if (role := role_of(field)) and role.does == "swept"
    }
    assert told == swept
