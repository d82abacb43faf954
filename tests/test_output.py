"""What watches a sweep never changes what it does; `test_commands.py` has terminals that go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from plans import Planned

from jaxorg.cli.console import Console
from sweeps import run, same_tables

ONE = ("grid=[{treatment.kind: [hhh]}]", "seeds=1", "reversal=null")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """The small sweep, heard by somebody."""
    return run(tmp_path_factory.mktemp("reference") / "out", tiny_base, *ONE)


@pytest.mark.parametrize("call", ["began", "trained", "finished"])
def test_a_watcher_that_fails_is_told_no_more(
    reference: Path,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: str,
) -> None:
    told: list[str] = []

    def fail(*_: object) -> None:
        told.append(call)
        raise ZeroDivisionError("of the watcher's")

    monkeypatch.setattr(Console, call, fail)
    out = run(tmp_path / "out", tiny_base, *ONE)
    assert same_tables(out, reference) == ""
    assert told == [call]
    assert "of the watcher's" in caplog.text


@pytest.mark.parametrize("validated", [None, 0.0, 1.0])
def test_the_live_line_marks_what_a_judge_decided(
    planned: Planned, capsys: pytest.CaptureFixture[str], validated: float | None
) -> None:
    plan = planned()
    right = {"metric": "capability", "condition": "clean", "value": 0.75, "n": 16}
    judge = {"metric": "judge_validated", "condition": "capability", "value": validated, "n": 1}
    rows = [right] if validated is None else [right, judge]
    record: Any = {"evals": rows, "diverged": None}
    Console(plan).finished(plan.phases[0], record)
    mark = {None: "", 0.0: " (unvalidated judge)", 1.0: " (judge)"}[validated]
    line = " ".join(capsys.readouterr().out.split())
    assert f"capability 75.0 %{mark} {plan.labels[plan.phases[0].fingerprint]}".strip() in line
    assert validated is not None or "judge" not in line
