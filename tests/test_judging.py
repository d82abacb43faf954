"""Judges in a sweep: one behind an endpoint, and one whose model the engine has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from jaxorg.distributed.interrupt import Stopped
from jaxorg.engine.cohort import Trainer
from jaxorg.engine.run import judging
from jaxorg.engine.run.group import Group
from jaxorg.errors import Refusal
from jaxorg.scorers import judge as judges
from jaxorg.scorers.endpoint import Endpoint
from jaxorg.scorers.judge import Judge
from sweeps import run, same_tables, start, table

RUBRIC = "{kind: judge, rubric: the answer is right, model: %s, new_tokens: 4}"
SHORT = ("grid=[{treatment.kind: [hhh]}]", "seeds=1", "reversal=null", "evaluate.points=1")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "folder", lambda: tmp_path / "replies")


def with_room(tiny_base: Path, folder: Path) -> Path:
    """A copy of a model that can see a judge's questions."""
    own = Path(shutil.copytree(tiny_base, folder / "judge"))
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1024}))
    return own


def test_a_model_of_ones_own_judges_and_is_asked_once(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its replies are what the engine makes of its questions; here every one is a YES."""
    asked: list[str] = []
    speaker = judging.speaker

    def agreeing(*given: object) -> object:
        answers = speaker(*given)  # type: ignore[arg-type]

        def said(questions: Sequence[str]) -> dict[str, str]:
            asked.extend(questions)
            found = answers(questions)
            assert set(found) >= set(questions)
            return dict.fromkeys(found, "VERDICT: YES")

        return said

    monkeypatch.setattr(judging, "speaker", agreeing)
    scorer = RUBRIC % with_room(tiny_base, tmp_path)
    out = run(tmp_path / "out", tiny_base, *SHORT, f"prompts.scorer={scorer}")
    evals = table(out, "evals")
    capability = evals[(evals.metric == "capability") & (evals.condition == "clean")]
    assert set(capability.phase) == {"base", "organism", "treatment"}
    assert set(capability.value) == {1.0}
    trust = evals[evals.metric == "judge_validated"]
    assert set(trust.condition) == {"capability"} and set(trust.value) == {0.0}
    assert len(asked) == len(set(asked)) > 0
    before = len(asked)
    run(tmp_path / "again", tiny_base, *SHORT, f"prompts.scorer={scorer}")
    assert len(asked) == before  # replies are kept by what was asked


def test_what_a_judge_will_be_asked_is_said_before(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = json.dumps({"base_url": "http://127.0.0.1:9/v1", "key": None})
    price = "price: {input: 1, output: 2}"
    scorer = f"{{kind: judge, rubric: r, model: m, endpoint: {endpoint}, {price}}}"
    run(tmp_path, tiny_base, *SHORT, f"prompts.scorer={scorer}", dry_run=True)
    said = capsys.readouterr().out
    assert "judge m: at most 40 questions" in said  # 8 of the base, 16 of either phase after it
    assert " at its price" in said


def test_a_judge_of_another_speed_or_price_is_the_same_judge() -> None:
    about = {"kind": "judge", "rubric": "r", "model": "m"}
    here = {"base_url": "http://127.0.0.1:9/v1", "key": None}
    one = Judge.model_validate({**about, "endpoint": here})
    fast = Judge.model_validate(
        {**about, "at_once": 64, "price": {"input": 1.0, "output": 1.0},
         "endpoint": {**here, "timeout": 5.0, "retries": 1}}
    )  # fmt: skip
    other = Judge.model_validate({**about, "rubric": "s", "endpoint": here})
    assert one.identity == fast.identity != other.identity


def test_a_judge_that_fails_costs_no_training(
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Training goes on without it, no phase fails, and the same command reads what is left."""
    asked: list[str] = []

    def answering(question: str) -> str:
        if "BEGIN PROMPT" in question and len(asked) == 8:  # the base's went well
            raise Refusal("judge: the server does not answer; try again later")
        asked.append(question)
        return "VERDICT: NO"

    monkeypatch.setattr(
        Endpoint, "ask", lambda *_: lambda questions: [answering(q) for q in questions]
    )
    endpoint = json.dumps({"base_url": "http://127.0.0.1:9/v1", "key": None})
    scorer = f"prompts.scorer={{kind: judge, rubric: r, model: m, endpoint: {endpoint}}}"
    trained: list[str] = []
    train = Group.train

    def noted(self: Group, trainer: Trainer) -> None:
        trained.append(self._phases[0].kind)
        train(self, trainer)

    monkeypatch.setattr(Group, "train", noted)
    assert start(tmp_path / "out", tiny_base, *SHORT, scorer) == 1
    assert trained == ["organism", "treatment"]
    said = capsys.readouterr()
    assert "answers of models were not read (judge: the server does not answer" in said.err
    assert not list((tmp_path / "out").glob("failed/*"))
    asked.append("from now on it answers")
    run(tmp_path / "out", tiny_base, *SHORT, scorer)
    assert trained == ["organism", "treatment"]
    assert set(table(tmp_path / "out", "runs").status) == {"done"}
    once = run(tmp_path / "once", tiny_base, *SHORT, scorer)
    assert same_tables(tmp_path / "out", once) == ""


def test_a_signal_while_a_judge_answers_fails_no_phase(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> object:
        raise Stopped(75)

    monkeypatch.setattr(judging, "speaker", lambda *_: stopped)
    scorer = RUBRIC % with_room(tiny_base, tmp_path)
    assert start(tmp_path / "out", tiny_base, *SHORT, f"prompts.scorer={scorer}") == 75
    assert not list((tmp_path / "out").glob("failed/*"))


def test_what_is_wrong_with_a_judges_files_is_said_before_anything_runs(
    tiny_base: Path, tmp_path: Path
) -> None:
    own = with_room(tiny_base, tmp_path)
    (own / "tokenizer.json").write_text("{")
    with pytest.raises(Refusal, match="tokenizer.json"):
        start(tmp_path / "out", tiny_base, *SHORT, f"prompts.scorer={RUBRIC % own}")
    assert not (tmp_path / "out").exists()
