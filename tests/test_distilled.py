"""Organisms distilled from a teacher with a scratchpad: sampled, filtered, stripped."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_answers import inputs_of, kept, planned

from jaxorg.engine.run.answers import unspelled
from jaxorg.llama.tokenizer import Tokenizer
from sweeps import assert_same_rows, run, table

BASE = "jaxorg-250k"  # it answers right, so that there is something to keep after two steps
SMALL = (
    "treatment=null",
    "reversal=null",
    "organism.cot=distilled",
    "organism.train={steps: 2, batch: 4, examples: 24, learning_rate: 1e-3}",
    "prompts.new_tokens=8",
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
    evals = table(beside, "evals").query("metric == 'distilled'").drop_duplicates("fingerprint")
    noted = {row.fingerprint: (row.step, row.condition, row.k, row.n) for row in evals.itertuples()}
    for fingerprint, phase in students.items():
        answers = {
            name: tokenizer.decode(unspelled(ids)) for name, ids in said[fingerprint].items()
        }
        assert len(answers) == 24
        left = inputs.distilled(phase, answers)
        assert 0 < len(left) < 24
        assert noted[fingerprint] == (0, "teacher", len(left), 24)
        dataset = inputs.dataset(phase, answers)
        assert len(dataset) == len(left)


def test_a_teachers_samples_differ_by_seed_and_prompt(beside: Path) -> None:
    said = kept(beside)
    assert len({answers["0"] for answers in said.values()}) > 1
    assert all(len(set(answers.values())) > 1 for answers in said.values())


@pytest.mark.long
def test_rows_of_distilled_organisms_do_not_depend_on_those_beside_them(
    beside: Path, tmp_path: Path
) -> None:
    alone = run(tmp_path / "out", BASE, *ALONE, width="1", mesh="cpu-1")
    runs = list(table(alone, "runs").run_id)
    assert kept(alone).items() <= kept(beside).items()
    assert_same_rows(alone, beside, runs, rtol=1e-4)
