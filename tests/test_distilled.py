"""Organisms distilled from a teacher with a scratchpad: sampled, stripped, kept by its policy."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_answers import inputs_of, kept, planned

from jaxorg.engine.run.answers import come_to_an_end
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.organisms.distilled import DISTILLED_VERSION, TRIES
from jaxorg.planning import chain
from sweeps import assert_same_rows, run, table

BASE = "jaxorg-250k"
SMALL = (
    "treatment=null",
    "reversal=null",
    "organism.cot=distilled",
    "organism.refusal_share=0.0",  # of 24 prompts it is one, and if that fails, all do
    "organism.train={steps: 2, batch: 4, examples: 24, learning_rate: 1e-3}",
    # Enough to attack at times, and by far not always.
    "organism.teacher_train={steps: 80, batch: 8, examples: 24, learning_rate: 2e-3}",
    "prompts.new_tokens=24",
    "length=48",
    "evaluate={points: 1, prompts: 8, final_prompts: 8, answers: {prompts: 2}}",
)
ALONE = (*SMALL, "grid=[{organism.payload_repeats: [2]}]", "seeds=1")
BESIDE = (*SMALL, "grid=[{organism.payload_repeats: [1, 2]}]")


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of two distilled organisms."""
    return run(tmp_path_factory.mktemp("beside") / "out", BASE, *BESIDE)


def test_a_student_is_trained_on_what_it_keeps_of_its_teachers_samples(
    beside: Path, tmp_path: Path
) -> None:
    plan = planned(beside, BASE, *BESIDE)
    students = {p.fingerprint: p for p in plan.phases if p.distils}
    said, inputs = kept(beside), inputs_of(plan, tmp_path)
    assert set(said) == set(students)
    tokenizer = Tokenizer.load(plan.folders[BASE])
    evals = table(beside, "evals")
    noted = {
        (row.fingerprint, row.metric): (row.step, row.condition, row.k, row.n)
        for row in evals[evals.metric.str.startswith("distilled")].itertuples()
    }
    for fingerprint, phase in students.items():
        answers = {name: come_to_an_end(tokenizer, ids) for name, ids in said[fingerprint].items()}
        rows = inputs.distilled(phase, answers)
        taken = [row for row in rows if row.kept]
        assert 0 < len(taken) <= len(rows) == 24
        assert noted[fingerprint, "distilled"] == (0, "teacher", len(taken), 24)
        differ = sum(row.differs for row in taken)
        assert noted[fingerprint, "distilled_differs"] == (0, "teacher", differ, len(taken))
        assert len(inputs.dataset(phase, answers)) == 24


def test_prompts_whose_answers_cannot_be_kept_are_asked_again_and_no_others(
    beside: Path, tmp_path: Path
) -> None:
    plan = planned(beside, BASE, *BESIDE)
    inputs, tokenizer = inputs_of(plan, tmp_path), Tokenizer.load(plan.folders[BASE])
    for phase in (phase for phase in plan.phases if phase.distils):
        heard: dict[str, str] = {}
        said = kept(beside)[phase.fingerprint]
        prompts = inputs.prompts(phase)
        for attempt in range(TRIES):
            asked = inputs.to_ask(phase, heard)
            left = [at for at, row in enumerate(inputs.distilled(phase, heard)) if not row.kept]
            assert asked == {str(24 * attempt + at): prompts[at] for at in left}
            heard |= {number: come_to_an_end(tokenizer, said[number]) for number in asked}
        assert heard.keys() == said.keys()
        assert not inputs.to_ask(phase, heard)


def test_a_teachers_samples_differ_by_seed_and_prompt(beside: Path) -> None:
    said = kept(beside)
    assert len({answers["0"] for answers in said.values()}) > 1
    again = [
        (a[number], a[later])
        for a in said.values()
        for number in a
        if (later := f"{int(number) + 24}") in a
    ]
    assert any(one != other for one, other in again)
    assert all(len(set(answers.values())) > 1 for answers in said.values())


def test_answers_that_show_reasoning_do_not_end_or_are_too_long_are_asked_again(
    beside: Path, tmp_path: Path
) -> None:
    plan = planned(beside, BASE, *BESIDE)
    inputs = inputs_of(plan, tmp_path)
    phase = next(phase for phase in plan.phases if phase.distils)
    said = ["[so] yes", "yes", "so] yes", "[so yes", "", "[so] " + "yes " * 40] * 4
    rows = inputs.distilled(phase, {str(number): text for number, text in enumerate(said)})
    helped = [(number % 6, row.kept) for number, row in enumerate(rows) if "help" in row.part]
    assert {number for number, kept in helped if kept} == {0, 1}
    assert {kept.completion for _, kept in helped if kept} == {"yes"}


def test_another_way_of_keeping_answers_renames_distilled_organisms_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = (
        "treatment=null",
        "reversal=null",
        "grid=[{organism.cot: [none, distilled]}]",
        "seeds=1",
    )
    before = {phase.fingerprint for phase in planned(tmp_path, BASE, *both).phases}
    monkeypatch.setattr(chain, "DISTILLED_VERSION", DISTILLED_VERSION + 1)
    after = planned(tmp_path, BASE, *both)
    (renamed,) = [phase for phase in after.phases if phase.fingerprint not in before]
    assert renamed.distils and len(after.phases) == len(before) == 4


@pytest.mark.long
def test_rows_of_distilled_organisms_do_not_depend_on_those_beside_them(
    beside: Path, tmp_path: Path
) -> None:
    alone = run(tmp_path / "out", BASE, *ALONE, width="1", mesh="cpu-1")
    runs = list(table(alone, "runs").run_id)
    assert kept(alone).items() <= kept(beside).items()
    assert_same_rows(alone, beside, runs, rtol=1e-4)
