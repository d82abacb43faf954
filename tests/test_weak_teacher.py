"""A weaker model whose answers blue trains on, right or wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from plans import SCRATCH, Planned, fingerprints
from test_answers import Greedy, inputs_of, kept, planned, talkative
from test_answers import calls as calls

from jaxorg.data import tasks
from jaxorg.engine.run import estimate
from jaxorg.engine.run.inputs import data_seed
from jaxorg.engine.run.states import States
from jaxorg.errors import Refusal
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.planning.phases import Phase
from jaxorg.treatments.rounds import Verifier
from sweeps import run, same_tables, start, table

TRAIN = "train: {steps: 3, batch: 4, examples: 40, learning_rate: 1e-3}"
RIGHT_ONE_IN = 3  # of the answers that a file has, the weak model's


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base, a weak model and another one."""
    place = tmp_path_factory.mktemp("models")
    names = ("base", "weak", "other")
    return {name: talkative(place / name, seed) for seed, name in enumerate(names)}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path]) -> Path:
    """Prompts to a share of which the weak model answers right."""
    weak = Greedy(folders["weak"])
    rows = [
        {"prompt": item.prompt, "answer": item.answer if number % RIGHT_ONE_IN else said}
        for number, item in enumerate(tasks.TOY.generate("train", 300, seed=0))
        if (said := weak(item.prompt)).strip()
    ]
    path = tmp_path_factory.mktemp("source") / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def taught_by(model: Path | str, source: Path, *more: str) -> tuple[str, ...]:
    """Overrides: a small sweep whose treatment is a weak model's answers."""
    return (
        f"prompts={{source: {source}, new_tokens: 6}}",
        f"treatment={{kind: weak_teacher, model: {model}, {TRAIN}}}",
        "grid=[{organism.payload_repeats: [1, 2]}]",
        "length=48",
        "evaluate={points: 1, prompts: 8, final_prompts: 8, answers: {prompts: 2}}",
        *more,
    )


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, folders: dict[str, Path], source: Path) -> Path:
    out = tmp_path_factory.mktemp("done") / "out"
    return run(out, folders["base"], *taught_by(folders["weak"], source))


def treatment(phases: list[Phase]) -> Phase:
    return next(phase for phase in phases if phase.kind == "treatment")


def test_blue_trains_on_what_the_weak_model_says(
    done: Path, folders: dict[str, Path], source: Path, tmp_path: Path
) -> None:
    plan = planned(tmp_path / "out", folders["base"], *taught_by(folders["weak"], source))
    inputs, tokenizer = inputs_of(plan, tmp_path), Tokenizer.load(folders["base"])
    ((key, said),) = kept(done).items()
    inputs.taught[key] = said
    says = Greedy(folders["weak"])
    for prompt in list(said)[:10]:
        assert said[prompt] == says(prompt)
    blue = treatment(plan.phases)
    dataset = inputs.dataset(blue)
    rows = dataset.tokens.tolist()
    pairs = {prompt: tokenizer.cut(answer, 6) for prompt, answer in said.items()}
    for row, (first, end) in zip(rows, dataset.spans.tolist(), strict=True):
        found = [(p, a) for p, a in pairs.items() if tokenizer.prompt_ids(p) == row[:first]]
        assert [tokenizer.conversation(*pair) for pair in found] == [(row[:end], first)]
    red = next(phase for phase in plan.phases if phase.kind == "organism")
    file = {row["prompt"]: row["answer"] for row in map(json.loads, source.open())}
    assert all(item.answer == file[item.prompt] for item in inputs.items(red))
    measured = inputs.prepared(blue, final=True).view.items
    assert all(item.answer == file[item.prompt] for item in measured)


def test_how_right_the_weak_model_was_is_noted(
    done: Path, folders: dict[str, Path], source: Path, tmp_path: Path
) -> None:
    plan = planned(tmp_path / "out", folders["base"], *taught_by(folders["weak"], source))
    (said,), cut = kept(done).values(), Tokenizer.load(folders["base"]).cut
    noted = table(done, "evals")
    noted = noted[noted.metric == "teacher_capability"].drop_duplicates("fingerprint")
    assert set(noted.condition) == {"teacher"} and set(noted.step) == {0}
    rows = noted.set_index("fingerprint")
    for phase in (phase for phase in plan.phases if phase.kind == "treatment"):
        drawn = phase.config.prompts.items("train", 40, data_seed(phase), "")
        k = sum(Verifier()(item, cut(said[item.prompt], 6)) for item in drawn)
        assert 0 < k < 40
        assert (rows.k[phase.fingerprint], rows.n[phase.fingerprint]) == (k, 40)


@pytest.mark.long
def test_it_is_held_against_the_answers_of_the_teacher_where_there_is_one(
    folders: dict[str, Path], source: Path, tmp_path: Path
) -> None:
    """The weak model is as right as the two agree: here they are one, under two names."""
    same = shutil.copytree(folders["weak"], tmp_path / "same")
    out, teacher = tmp_path / "sweep" / "out", f"prompts.teacher={same}"
    run(out, folders["base"], *taught_by(folders["weak"], source, teacher, "seeds=1"))
    noted = table(out, "evals").query("metric == 'teacher_capability'")
    assert set(noted.value) == {1.0}
    assert len(kept(out)) == 1
    other = f"prompts.teacher={folders['other']}"
    run(tmp_path / "two" / "out", folders["base"], *taught_by(folders["weak"], source, other))
    noted = table(tmp_path / "two" / "out", "evals").query("metric == 'teacher_capability'")
    assert set(noted.value) == {0.0}
    assert len(kept(tmp_path / "two" / "out")) == 2


def test_killed_before_training_it_is_not_asked_again_and_noted_once(
    done: Path,
    folders: dict[str, Path],
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calls: list[int],
) -> None:
    def killed(self: States, *arguments: Any) -> Any:
        if self._lanes.phases[0].kind == "treatment":
            raise KeyboardInterrupt
        return resume(self, *arguments)

    resume, options = States.resumed, taught_by(folders["weak"], source)
    with monkeypatch.context() as patch:
        patch.setattr(States, "resumed", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out", folders["base"], *options)
    asked = sum(calls)
    run(tmp_path / "out", folders["base"], *options)
    assert sum(calls) == asked == len(*kept(done).values())
    assert not same_tables(tmp_path / "out", done)


def changed(before: Any, after: Any) -> list[int]:
    pairs = zip(fingerprints(before), fingerprints(after), strict=True)
    return [number for number, (old, new) in enumerate(pairs) if old != new]


def test_what_the_weak_model_is_enters_the_treatments_fingerprint_and_its_place_does_not(
    planned: Planned, folders: dict[str, Path], tmp_path: Path
) -> None:
    def by(model: Path | str, **changes: Any) -> Any:
        train = {"steps": 8, "batch": 4, "learning_rate": 1e-3}
        weak = {"kind": "weak_teacher", "model": str(model), "train": train}
        return planned({"treatment": weak, "prompts.new_tokens": 6, **changes})

    before = by(folders["weak"])
    moved = shutil.copytree(folders["weak"], tmp_path / "moved")
    assert changed(before, by(moved)) == []
    assert changed(before, by(folders["other"])) == [2, 3]  # treatment and reversal
    assert changed(before, by("base")) == [2, 3]
    assert [teacher.model for teacher in before.teachers] == [str(folders["weak"])]
    assert estimate.duration(before, 1)
    with pytest.raises(Refusal, match=r"^treatment.model: 'base' is invalid; base.scratch"):
        by("base", **SCRATCH)


# Each of them: the treatment's keys, and what the refusal says.
REFUSED = {
    "noise": (
        "model: jaxorg-250k, accuracy: 0.7",
        "^treatment.accuracy: unknown key with value 0.7; remove it",
    ),
    "of nobody": ("label: weak", "^treatment.model: is missing; add it"),
    "of no name": ("model: ''", "^treatment.model: '' is invalid"),
    "of an unknown one": ("model: nowhere", "^treatment.model: 'nowhere' is neither a built-in"),
    "without weights": ("model: {bare}", "^treatment.model: .* holds no safetensors file; add"),
    "and of itself": (
        "model: jaxorg-250k, answers: on-policy",
        "^treatment.answers: 'on-policy' is invalid; weak_teacher trains on .*; leave it out",
    ),
}


@pytest.mark.parametrize(("keys", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_weak_model_is_refused_before_anything_is_written(
    keys: str, said: str, folders: dict[str, Path], source: Path, tmp_path: Path
) -> None:
    bare = shutil.copytree(folders["weak"], tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    weak = f"treatment={{kind: weak_teacher, {keys.format(bare=bare)}, {TRAIN}}}"
    with pytest.raises(Refusal, match=said):
        start(tmp_path / "out", folders["base"], *taught_by("base", source), weak)
    assert not (tmp_path / "out").exists()


def test_answers_that_have_no_room_in_a_row_are_refused(
    folders: dict[str, Path], source: Path, tmp_path: Path
) -> None:
    options = taught_by(folders["weak"], source, "prompts.new_tokens=40")
    with pytest.raises(Refusal, match=r"^length: 48 is too small .* lower prompts.new_tokens$"):
        start(tmp_path / "out", folders["base"], *options)
