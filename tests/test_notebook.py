"""Sweeps from Python, as a notebook calls them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import jaxorg
from jaxorg.errors import Refusal
from jaxorg.notebook import Results
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


def test_there_is_nothing_else_to_be_had_by_name() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'swep'"):
        _ = jaxorg.swep
