"""The commands open from the command line, and say what they take."""

import importlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from jaxorg import discovery
from jaxorg.__main__ import COMMANDS, main
from jaxorg.cli import common
from jaxorg.list import list as command
from jaxorg.organisms import ORGANISMS
from jaxorg.sweepfile import builtin
from jaxorg.treatments import TREATMENTS


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """The command takes signals for its process; this one is pytest's."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_help_names_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([], ["--help"]):
        monkeypatch.setattr(sys, "argv", ["jaxorg", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        assert not caught.value.code
        shown = capsys.readouterr().out
        assert all(command in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_its_options(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["jaxorg", command, "--help"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert not caught.value.code
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: jaxorg {command} ")
    assert "Raises" not in shown
    module = importlib.import_module(f"jaxorg.{command}")
    first_words = (getattr(module, command).__doc__ or "").split()[:4]
    assert " ".join(first_words) in shown


@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("organisms", [discovery.kind_of(made) for made in ORGANISMS]),
        ("treatments", [discovery.kind_of(made) for made in TREATMENTS]),
        ("evaluators", ["attack", "capability", "margin", "near", "responses", "style"]),
        ("sweeps", list(builtin.sweeps())),
        ("meshes", ["cpu, cpu-N", "v4-64", "v6e-256"]),
    ],
)
def test_everything_is_listed_with_a_line(
    what: str, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        common.run(command, [what], "jaxorg list")
    lines = capsys.readouterr().out.splitlines()
    for name in names:
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        assert line.removeprefix(name).strip()


def test_a_module_is_a_command_of_its_own() -> None:
    command = [sys.executable, "-m", "jaxorg.sweep", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.startswith("Usage: python -m jaxorg.sweep ")


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_imports_nothing_that_only_the_work_needs(name: str) -> None:
    """Most of a second of CPU, otherwise: JAX, SciPy and pandas take three."""
    module = f"jaxorg.{name}" if name else "jaxorg"
    check = (
        "import runpy, sys\n"
        "sys.argv[1:] = ['--help']\n"
        f"try: runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
        "finally:\n"
        "    heavy = {'jax', 'numpy', 'scipy', 'pandas', 'pyarrow', 'grain', 'orbax', 'flax'}\n"
        "    assert not heavy & set(sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "Usage" in shown.stdout or "usage" in shown.stdout


def test_an_interrupted_command_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        common.run(command, [])
    assert caught.value.code == 130
    said = "jaxorg: stopped; run the same command without --fresh to resume\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("code", [0, 1])
def test_a_command_returns_its_exit_code(code: int) -> None:
    def command() -> int:
        return code

    with pytest.raises(SystemExit) as caught:
        common.run(command, [])
    assert caught.value.code == code


def test_a_bug_is_not_dressed_up_as_a_wrong_input() -> None:
    def command() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        common.run(command, [])
