"""Whether a sweep fits a slice: the choice of axes and width, and the TPU's own compiler."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from jaxorg import fit as door
from jaxorg.engine.aot import Compiled, compile_elsewhere
from jaxorg.fit import fit
from jaxorg.plan import make_plan
from jaxorg.runtime import Refusal
from jaxorg.signature import Static
from jaxorg.spec import load
from sweeps import write

GIGABYTE = 10**9
Said = Callable[[], str]


@pytest.fixture
def sweep(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The small sweep, on a machine that seems to have the TPU's compiler."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    return str(write(tmp_path / "out", tiny_base))


def taking(
    monkeypatch: pytest.MonkeyPatch, gigabytes: float, fixed: float = 0.0
) -> list[tuple[int, int]]:
    """Let every program take so much memory a run, divided by `fsdp`, and some besides. Returns
    the `fsdp` and width of each that is compiled."""
    tried = []

    def compiled(_: Static, __: str, axes: Mapping[str, int], width: int) -> Compiled:
        tried.append((axes["fsdp"], width))
        return Compiled(int((gigabytes * width / axes["fsdp"] + fixed) * GIGABYTE), 1.0)

    monkeypatch.setattr(door, "compile_elsewhere", compiled)
    return tried


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, object]:
    sweep, mesh, *sets = arguments
    assert fit(sweep, mesh, "laptop", list(sets), as_json=True) == code
    (found,) = json.loads(capsys.readouterr().out)
    return dict(found)


def test_the_widest_program_that_fits_is_chosen(
    sweep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = taking(monkeypatch, gigabytes=4)
    found = told(capsys, sweep, "v5e-4", "seeds=16")
    assert (found["width"], found["lanes"], found["fits"]) == (3, 12, True)  # of 15.4 GB a chip
    assert tried == [(1, 1), (1, 3)]


def test_it_is_no_wider_than_there_are_runs(
    sweep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taking(monkeypatch, gigabytes=0.1)
    assert told(capsys, sweep, "v5e-4")["width"] == 2  # 8 treatments on 4 chips


def test_a_guess_that_is_too_wide_is_halved(
    sweep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = taking(monkeypatch, gigabytes=1, fixed=1.1)
    found = told(capsys, sweep, "v5e-1", "seeds=16")
    assert tried == [(1, 1), (1, 7)]
    assert found["width"] == 7
    tried = taking(monkeypatch, gigabytes=3, fixed=-2)
    assert told(capsys, sweep, "v5e-1", "seeds=16")["width"] == 3
    assert tried == [(1, 1), (1, 15), (1, 7), (1, 3)]


def test_a_run_that_does_not_fit_is_spread_over_more_chips(
    sweep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = taking(monkeypatch, gigabytes=50)
    found = told(capsys, sweep, "v5e-16")
    assert found["axes"] == {"run": 4, "fsdp": 4, "tensor": 1}
    assert tried[:3] == [(1, 1), (2, 1), (4, 1)]


def test_what_does_not_fit_says_so_and_what_is_large_enough(
    sweep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taking(monkeypatch, gigabytes=500)
    monkeypatch.setattr("jaxorg.estimate.memory", lambda _: 500 * GIGABYTE)
    assert fit(sweep, "v5e-4", "laptop") == 1
    said = capsys.readouterr().out
    assert "DOES NOT FIT" in said
    assert "one run holds 500 GB besides its work; large enough should be:" in said
    assert "v4-64, v5p-32, v5e-64, v6e-32" in said


def test_axes_that_were_given_are_kept(
    sweep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = taking(monkeypatch, gigabytes=50)
    found = told(capsys, sweep, "v5e-16,fsdp=2", code=1)
    assert (found["axes"], found["fits"]) == ({"run": 8, "fsdp": 2, "tensor": 1}, False)
    assert tried == [(2, 1)]


def test_a_config_without_weights_is_enough(
    sweep: str, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    taking(monkeypatch, gigabytes=1)
    (tmp_path / "shape").mkdir()
    config = (tiny_base / "config.json").read_text()
    (tmp_path / "shape" / "config.json").write_text(config)
    assert fit(sweep, "v5e-1", "laptop", [f"base.model={tmp_path / 'shape'}"]) == 0


def test_what_cannot_be_asked_is_refused(sweep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refusal, match="--mesh: 'cpu-8' is no TPU slice; choose from v4-8, "):
        fit(sweep, "cpu-8", "laptop")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(Refusal, match=r"TPU compiler is missing; pip install 'jaxorg\[tpu\]'"):
        fit(sweep, "v5e-1", "laptop")


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed")
def test_the_tpus_compiler_says_what_a_program_takes(tiny_base: Path, tmp_path: Path) -> None:
    plan = make_plan(load(str(write(tmp_path / "out", tiny_base)), "laptop"), weights=False)
    static = next(cohort.static for cohort in plan.cohorts if cohort.static)
    axes = {"run": 2, "fsdp": 2, "tensor": 1}
    found = compile_elsewhere(static, "v5e-4", axes, 1)
    assert found.problem == ""
    assert 100_000 < found.memory < 100_000_000
    wrong = compile_elsewhere(static, "v5e-4", {**axes, "run": 3}, 1)
    assert "cannot reshape" in wrong.problem
