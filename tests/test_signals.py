"""Sweeps that are stopped from outside, as processes of their own: signals and kills."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import kills
import pytest

from sweeps import run, same_tables, write

LONG = (
    "grid=[{treatment.kind: [hhh, pirate]}]",
    "seeds=1",
    "organism.train.steps=1500",
    "evaluate.points=1",
)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    return run(tmp_path_factory.mktemp("reference") / "out", tiny_base, *LONG)


def stopped(out: Path, base: Path, signals: Sequence[int]) -> tuple[int, float, str]:
    """Start a sweep and send it signals while it trains: exit code, seconds it took, stderr."""
    sets = [word for override in LONG for word in ("--set", override)]
    command = [sys.executable, "-m", "jaxorg.sweep", str(write(out, base)), "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--mesh", "cpu-2", *sets],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until = time.monotonic() + 120
    while not list(out.glob("partial/*")):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.01)
    began = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.05)
    _, errors = process.communicate(timeout=60)
    return process.returncode, time.monotonic() - began, errors


@pytest.mark.parametrize(
    ("signals", "code"),
    [
        pytest.param([signal.SIGTERM], 75, marks=pytest.mark.long),
        ([signal.SIGINT], 130),
        pytest.param([signal.SIGINT, signal.SIGINT], 130, marks=pytest.mark.long),
    ],
    ids=["SIGTERM", "Ctrl-C", "Ctrl-C twice"],
)
def test_a_stopped_sweep_says_how_to_go_on_and_ends_with_the_same_tables(
    signals: Sequence[int], code: int, reference: Path, tiny_base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found, seconds, errors = stopped(out, tiny_base, signals)
    assert found == code, errors
    assert seconds < 30
    if len(signals) == 1:
        assert "stopping at the next safe point; once more stops at once" in errors
        assert errors.endswith("jaxorg: stopped; run the same command without --fresh to resume\n")
    assert "Traceback" not in errors
    run(out, tiny_base, *LONG)
    assert same_tables(out, reference) == ""


@pytest.mark.long
def test_killed_anywhere_and_started_again_the_tables_are_the_same(
    tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A few kills of the many that `make torture` does."""
    command = [sys.executable, kills.__file__, "--kills", "3", "--kind", "LoRA"]
    smaller = ("grid=[{treatment.kind: [hhh]}]", "reversal=null", f"base.model={tiny_base}")
    sets = [word for option in smaller for word in ("--set", option)]
    found = subprocess.run([*command, *sets], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "LoRA" in found.stdout
