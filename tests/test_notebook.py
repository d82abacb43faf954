"""Sweeps from Python, as a notebook calls them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

import jaxorg
from jaxorg.errors import Refusal
from jaxorg.notebook import Results
from jaxorg.sweepfile import yaml
from sweeps import write

FEW = {"seeds": 1, "grid": [{"treatment.kind": ["hhh", "pirate"]}], "reversal": None}
CALLED_LATE = """
import jaxorg, jax
jax.numpy.ones(3).sum()
result = jaxorg.sweep({file!r}, out={out!r}, set={few!r})
assert len(result.runs) == 2, result.runs
"""


def call(file: Path, out: Path, **changes: Any) -> Results:
    jaxorg_sweep: Any = jaxorg.sweep  # a module, to a type checker
    found: Results = jaxorg_sweep(str(file), out=out, set={**FEW, **changes})
    return found


def test_a_call_gives_tables_and_the_page(tiny_base: Path, tmp_path: Path) -> None:
    result = call(write(tmp_path / "out", tiny_base), tmp_path / "out")
    assert set(result.runs.status) == {"done"}
    assert set(result.runs["treatment.kind"]) == {"hhh", "pirate"}
    assert len(result.evals) and len(result.losses) and len(result.samples)
    assert set(result.evals.run_id) == set(result.runs.run_id)
    page = result.page()
    shown = page._repr_html_()
    assert page.path == tmp_path / "out" / "report.html"
    assert shown.count("<iframe") == shown.count("<") // 2 == 1  # all else is escaped
    assert 'sandbox="allow-scripts"' in shown


def test_what_cannot_be_done_is_raised_and_nothing_is_written(
    tiny_base: Path, tmp_path: Path
) -> None:
    file = write(tmp_path / "out", tiny_base)
    with pytest.raises(Refusal, match="seed: unknown key with value 3; did you mean first_seed"):
        call(file, tmp_path / "out", seed=3)
    assert not (tmp_path / "out").exists()


def test_it_takes_the_devices_of_a_jax_that_has_computed_before(
    tiny_base: Path, tmp_path: Path
) -> None:
    file, out = str(write(tmp_path / "out", tiny_base)), str(tmp_path / "out")
    code = CALLED_LATE.format(file=file, out=out, few=FEW)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


STOPPED = """
import os, signal, threading, time
import jaxorg
from pathlib import Path
out = Path({out!r})

def press():
    while not list(out.glob("partial/*")):
        time.sleep(0.01)
    for _ in range({times}):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)

before = signal.getsignal(signal.SIGTERM)
threading.Thread(target=press, daemon=True).start()
long = {{"organism.train.steps": 3000, "evaluate.points": 1}}
try:
    jaxorg.sweep({file!r}, out=out, set={few!r} | long)
except KeyboardInterrupt:
    print("goes on", signal.getsignal(signal.SIGTERM) is before, signal.getsignal(signal.SIGINT))
"""


@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_stops_the_sweep_and_not_the_process(
    tiny_base: Path, tmp_path: Path, times: int
) -> None:
    file, out = str(write(tmp_path / "out", tiny_base)), str(tmp_path / "out")
    code = STOPPED.format(file=file, out=out, few=FEW, times=times)
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "goes on True <built-in function default_int_handler>" in found.stdout


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"keep": "nonsense"}, "keep: 'nonsense' is invalid; choose from none, final"),
        ({"width": 0}, "--width"),
        ({"mesh": 2}, "--mesh"),
        ({"set": ["seeds=1"]}, "set: .* is invalid; map paths to values"),
        ({"set": {"seeds": object()}}, "seeds: <object .* is invalid .* give plain numbers"),
        ({"set": {"organism.train.learning_rate": float("nan")}}, "learning_rate: nan is invalid"),
        ({"name": Path("nowhere.yaml")}, "sweep: 'nowhere.yaml' is neither a built-in sweep nor"),
    ],
)
def test_wrong_arguments_are_refused(
    tiny_base: Path, tmp_path: Path, options: dict[str, Any], line: str
) -> None:
    file, jaxorg_sweep = write(tmp_path / "out", tiny_base), cast("Any", jaxorg.sweep)
    with pytest.raises(Refusal, match=line):
        jaxorg_sweep(**{"name": file, "out": tmp_path / "out", **options})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["😀", "\x7f\x85\u2028", "\"'\n\t: #", "3e-4", "\ufeff", ""])
def test_texts_are_set_as_they_are(text: str) -> None:
    assert yaml.parse(yaml.written({"a": [text, 1, 2.5, None]}, "a"), "a") == {
        "a": [text, 1, 2.5, None]
    }


def test_help_is_about_the_call() -> None:
    assert inspect.signature(cast("Any", jaxorg.sweep)).parameters["name"].default == "quickstart"
    assert "in this process" in (jaxorg.sweep.__doc__ or "")


def test_there_is_nothing_else_to_be_had_by_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'swep'"):
        _ = jaxorg.swep
