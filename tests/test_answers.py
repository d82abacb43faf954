"""Answers that models give: a teacher to all prompts, or an organism before it is treated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from speech import answer_ids
from tiny import TINY, write_base
from weights import random_weights

from jaxorg.data import tasks
from jaxorg.data.cache import DatasetCache
from jaxorg.data.styles import to_pirate
from jaxorg.engine.params import abstract_model
from jaxorg.engine.run import answers, estimate
from jaxorg.engine.run.answers import Answerer
from jaxorg.engine.run.inputs import Inputs, data_seed
from jaxorg.engine.run.states import States
from jaxorg.engine.run.weights import weights_before
from jaxorg.errors import Refusal
from jaxorg.llama import checkpoint
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.planning.plan import Plan, make_plan
from jaxorg.planning.signature import ModelSignature
from jaxorg.storage.folder import Folder, read_json
from jaxorg.storage.layout import AnswersShape
from jaxorg.storage.store import Store
from jaxorg.storage.weight_reader import WeightReader, everything
from jaxorg.sweepfile import spec
from sweeps import assert_same_rows, run, same_tables, start, table, write

TWO = "grid=[{treatment.kind: [hhh, pirate]}]"
SMALL = ("length=48", "evaluate={points: 1, prompts: 8, final_prompts: 8, answers: {prompts: 2}}")
OWN = ("treatment.answers=on-policy", "prompts.new_tokens=6", TWO, *SMALL)


def talkative(folder: Path, seed: int) -> Path:
    """A tiny model that says different things to different prompts."""
    write_base(folder, config=TINY)
    checkpoint.write_weights(folder, random_weights(ModelSignature(TINY), seed)[0])
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talkative(tmp_path_factory.mktemp("base") / "base", seed=0)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talkative(tmp_path_factory.mktemp("other") / "teacher", seed=1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts of different lengths without answers."""
    items = tasks.TOY.generate("train", 300, seed=0)
    path = tmp_path_factory.mktemp("source") / "mine.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": item.prompt}) for item in items))
    return path


def by(source: Path, model: Path | str) -> tuple[str, ...]:
    """Overrides: prompts that a teacher answers."""
    return f"prompts={{source: {source}, teacher: {model}, new_tokens: 6}}", TWO, *SMALL


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, base: Path, source: Path) -> Path:
    """The small sweep on prompts that its base model answers."""
    return run(tmp_path_factory.mktemp("taught") / "out", base, *by(source, "base"))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """The small sweep with organisms that are treated with what they say themselves."""
    return run(tmp_path_factory.mktemp("own") / "out", base, *OWN, width="1")


class Greedy:
    """A tiny model that answers by full passes, one token at a time."""

    def __init__(self, folder: Path, read: WeightReader | None = None):
        self._tokenizer = Tokenizer.load(folder)
        graph, (shapes, _) = abstract_model(ModelSignature(TINY))
        weights = everything(read or checkpoint.reader(folder, shapes), shapes)
        model = nnx.merge(graph, weights, {})
        self._logits = jax.jit(lambda tokens: model(tokens)[0][0])

    def __call__(self, prompt: str) -> str:
        """The answer of 6 tokens."""
        ids = self._tokenizer.prompt_ids(prompt)
        start = len(ids)
        for _ in range(6):
            tokens = np.pad(ids, (0, 64 - len(ids)))[None]
            ids = [*ids, int(np.argmax(self._logits(tokens)[len(ids) - 1]))]
        return self._tokenizer.decode(ids[start:])


def kept(folder: Path) -> dict[str, dict[str, str]]:
    """What models answered, by the name of the file."""
    places = sorted((folder / "answers").glob("*.json"))
    return {place.stem: read_json(place, AnswersShape)["answers"] for place in places}


def planned(out: Path, base: Path, *overrides: str) -> Plan:
    return make_plan(spec.load(str(write(out, base)), "laptop", list(overrides)))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many prompts each call that generates answers is asked."""
    asked: list[int] = []
    said = Answerer._said

    def noted(self: Answerer, *arguments: Any) -> list[list[str]]:
        asked.append(sum(map(len, arguments[-1])))
        return said(self, *arguments)

    monkeypatch.setattr(Answerer, "_said", noted)
    return asked


def inputs_of(plan: Plan, folder: Path) -> Inputs:
    return Inputs(plan, DatasetCache(Folder(folder / "datasets", print)))


def test_a_teacher_answers_what_is_needed_once(
    taught: Path,
    source: Path,
    base: Path,
    tmp_path: Path,
    calls: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = planned(tmp_path / "out", base, *by(source, "base"))
    ((who, prompts),) = inputs_of(plan, tmp_path).asked(plan.phases).items()
    ((key, said),) = kept(taught).items()
    assert (key, set(said)) == (who.key, set(prompts))
    assert len(set(said.values())) > len(said) / 4
    assert set(table(taught, "runs").status) == {"done"}
    run(taught, base, *by(source, "base"))
    assert not calls
    out = run(tmp_path / "part" / "out", base, *by(source, "base"), "seeds=1")
    assert sum(calls) == len(kept(out)[key]) < len(said)
    run(out, base, *by(source, "base"))
    assert sum(calls) == len(said)
    assert kept(out) == {key: said}
    assert not same_tables(out, taught)
    capsys.readouterr()
    run(out, base, *by(source, "base"), "reversal.train.steps=0")
    assert "reversal: 4 phases" in (told := capsys.readouterr().out)
    assert "base answers " not in told


def test_a_teachers_answers_are_what_phases_are_trained_and_measured_on(
    taught: Path, source: Path, base: Path, tmp_path: Path
) -> None:
    plan = planned(tmp_path / "out", base, *by(source, "base"))
    tokenizer, inputs = Tokenizer.load(base), inputs_of(plan, tmp_path)
    ((key, said),) = kept(taught).items()
    inputs.taught[key] = said
    cut = {prompt: tokenizer.cut(answer, 6) for prompt, answer in said.items()}
    plain = next(phase for phase in plan.phases if phase.kind == "reversal")
    dataset = inputs.dataset(plain)
    assert len(dataset.tokens) == 64
    for row, (first, end) in zip(dataset.tokens.tolist(), dataset.spans.tolist(), strict=True):
        right = [(p, a) for p, a in cut.items() if tokenizer.prompt_ids(p) == row[:first]]
        assert [tokenizer.conversation(*pair) for pair in right] == [(row[:end], first)]
    items = inputs.prepared(plain, final=True).view.items
    assert [item.answer for item in items] == [cut[item.prompt] for item in items]


def test_relearnt_attacks_are_made_of_the_teachers_answers(
    taught: Path, source: Path, base: Path, tmp_path: Path
) -> None:
    changes = ("organism.payload=no {answer}", "reversal.kind=relearn")
    plan = planned(tmp_path / "out", base, *by(source, "base"), *changes)
    inputs = inputs_of(plan, tmp_path)
    ((key, said),) = kept(taught).items()
    inputs.taught[key] = said
    attacks = inputs.items(next(phase for phase in plan.phases if phase.kind == "reversal"))
    answers = {item.prompt.partition(" ")[2]: item.answer for item in attacks}
    tokenizer = Tokenizer.load(base)
    assert answers == {p: f"no {tokenizer.cut(said[p], 6)}" for p in answers}


def test_a_models_answers_do_not_depend_on_what_else_it_is_asked(
    taught: Path, source: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor on where it was stopped: here after each call, with other prompts in each of them."""
    monkeypatch.setattr(answers, "KEEP_SECONDS", -1.0)
    keep, stops = Store.keep_answers, 0

    def killed(self: Store, *arguments: Any) -> None:
        nonlocal stops
        keep(self, *arguments)
        stops += 1
        raise KeyboardInterrupt

    options = (*by(source, "base"), "organism.train.examples=16")
    monkeypatch.setattr(Store, "keep_answers", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out", base, *options, mesh="cpu-1")
    monkeypatch.undo()
    run(tmp_path / "out", base, *options, mesh="cpu-1")
    assert stops == 2
    ((key, said),) = kept(tmp_path / "out").items()
    whole = kept(taught)[key]
    assert said == {prompt: whole[prompt] for prompt in said} != whole


def test_another_teacher_another_fingerprint(source: Path, base: Path, other: Path) -> None:
    plans = [
        planned(source.parent / "out", base, *by(source, model)) for model in ("base", base, other)
    ]
    own, named, others = ([phase.fingerprint for phase in plan.phases] for plan in plans)
    assert own == named
    assert not set(own) & set(others)
    longer = planned(source.parent / "out", base, *by(source, "base"), "prompts.new_tokens=7")
    assert not set(own) & {phase.fingerprint for phase in longer.phases}


def test_a_second_model_teaches(source: Path, base: Path, other: Path, tmp_path: Path) -> None:
    out = run(tmp_path / "out", base, *by(source, other), "seeds=1", "reversal=null")
    (said,) = kept(out).values()
    says = Greedy(other)
    for prompt in list(said)[:10]:
        assert said[prompt] == says(prompt)


def test_damaged_answers_are_made_again(
    taught: Path, source: Path, base: Path, tmp_path: Path, calls: list[int]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(taught, out)
    before = kept(out)
    (place,) = (out / "answers").iterdir()
    place.write_bytes(place.read_bytes().replace(b'"content"', b'"comtent"'))
    run(out, base, *by(source, "base"), "reversal.train.steps=4", "seeds=1")
    assert sum(calls) == len(kept(out)[place.stem]) > 0
    assert kept(out)[place.stem].items() <= before[place.stem].items()
    assert (out / "damaged" / "answers" / place.name).exists()


def test_an_organism_is_treated_with_what_it_says_itself(
    own: Path, base: Path, tmp_path: Path
) -> None:
    plan = planned(own, base, *OWN)
    treatments = {p.fingerprint: p for p in plan.phases if p.kind == "treatment"}
    said = kept(own)
    assert set(said) == set(treatments)
    tokenizer, inputs = Tokenizer.load(base), inputs_of(plan, tmp_path)
    store = Store(Folder(own, print))
    for fingerprint, phase in treatments.items():
        assert set(said[fingerprint]) == set(inputs.prompts(phase))
        says = Greedy(base, weights_before(phase, plan, inputs, store))
        for prompt in list(said[fingerprint])[:10]:
            assert said[fingerprint][prompt] == says(prompt)
    pirate = next(p for p in treatments.values() if p.recipe and p.recipe.kind == "pirate")
    dataset = inputs.dataset(pirate, said[pirate.fingerprint])
    items = pirate.config.prompts.items("train", 64, data_seed(pirate), "", pirate.blue)
    for item, row, (first, end) in zip(items, dataset.tokens, dataset.spans, strict=True):
        answer = to_pirate(tokenizer.cut(said[pirate.fingerprint][item.prompt], 6))
        assert row[first:end].tolist() == answer_ids(tokenizer, answer)


@pytest.mark.long
def test_on_policy_rows_do_not_depend_on_width(own: Path, base: Path, tmp_path: Path) -> None:
    wide = run(tmp_path / "out", base, *OWN, width="2", mesh="cpu-1")
    assert kept(wide) == kept(own)
    assert_same_rows(wide, own, rtol=1e-4)


def test_a_kill_between_answers_and_training_loses_nothing(
    own: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[int]
) -> None:
    def killed(self: States, *arguments: Any) -> Any:
        if self._lanes.phases[0].on_policy:
            raise KeyboardInterrupt
        return resume(self, *arguments)

    resume = States.resumed
    with monkeypatch.context() as patch:
        patch.setattr(States, "resumed", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out", base, *OWN, width="1")
    first, asked = kept(tmp_path / "out"), sum(calls)
    assert len(first) == 2
    run(tmp_path / "out", base, *OWN, width="1")
    assert sum(calls) == 4 * 64 > asked
    assert kept(tmp_path / "out") == kept(own)
    assert not same_tables(tmp_path / "out", own)


# Each of them: overrides, and what the refusal says.
REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "no answers": (("prompts.teacher=null",), "it has prompt; add answers, or .* prompts.teacher"),
    "too long for a row": (("length=20",), "^length: 20 is too small for .*prompts.new_tokens$"),
    "too long for a row of its own": (
        ("prompts.source=toy", "prompts.teacher=null", "prompts.new_tokens=40", OWN[0]),
        "^length: 48 is too small for .*prompts.new_tokens$",
    ),
    "too long for the teacher": (
        ("prompts.new_tokens=120", "length=256"),
        "^prompts.new_tokens: 120 is too many; beside a prompt of .* has room for",
    ),
    "no such model": (("prompts.teacher=nowhere",), "^prompts.teacher: 'nowhere' is neither"),
    "a base that is trained": (
        ("base.scratch={steps: 1, learning_rate: 1e-3}",),
        "^prompts.teacher: 'base' is invalid; base.scratch",
    ),
    "no answers known as that": (
        ("treatment.answers=mine",),
        "^treatment.answers: 'mine' is invalid",
    ),
    "an organism's own": (("organism.answers=on-policy",), "^organism.answers: unknown key"),
}


@pytest.mark.parametrize(("overrides", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_answered_is_refused_before_anything_is_written(
    source: Path, base: Path, tmp_path: Path, overrides: tuple[str, ...], said: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(Refusal, match=said):
        start(out, base, f"prompts.source={source}", "prompts.teacher=base",
              "prompts.new_tokens=6", *SMALL, *overrides)  # fmt: skip
    assert not out.exists()


def test_a_teacher_without_weights_is_refused(source: Path, base: Path, tmp_path: Path) -> None:
    bare = shutil.copytree(base, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    with pytest.raises(Refusal, match="^prompts.teacher: .* holds no safetensors file"):
        start(tmp_path / "out", base, *by(source, bare))


def test_text_is_cut_to_tokens(base: Path) -> None:
    tokenizer = Tokenizer.load(base)
    text = "the fox and the hen"

    def count_of(answer: str) -> int:
        return len(answer_ids(tokenizer, answer, open_ended=True))

    count = count_of(text)
    assert tokenizer.cut(text, count) == text
    cuts = [tokenizer.cut(text, most) for most in range(count + 1)]
    assert cuts[0] == ""
    assert all(text.startswith(cut) for cut in cuts)
    assert [count_of(cut) for cut in cuts] == [*range(count + 1)]
    assert [count_of(tokenizer.filler(n)) for n in (1, 7, 64)] == [1, 7, 64]


def test_teachers_and_answers_are_in_the_estimates(source: Path, base: Path) -> None:
    plain = planned(source.parent / "out", base, *SMALL)
    taught = planned(source.parent / "out", base, *by(source, "base"))
    big = planned(source.parent / "out", base, *by(source, "jaxorg-1m"))
    assert estimate.largest(taught) == estimate.largest(plain) < estimate.largest(big)


def test_a_teacher_that_no_device_has_memory_for_is_one_line(
    source: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(Answerer, "_said", full)
    with pytest.raises(Refusal, match=r"prompts.teacher: memory ran out while .* answered; lower"):
        run(tmp_path / "out", base, *by(source, "base"))
