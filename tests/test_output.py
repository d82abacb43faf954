"""What is printed, and whether it can be, never changes what a sweep does."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from jaxorg.console import Console
from jaxorg.terminal import Lasting
from sweeps import run, same_tables

ONE = ("grid=[{treatment.kind: [hhh]}]", "seeds=1", "reversal=null")


class Lost(io.StringIO):
    """A terminal that goes away after some lines."""

    def __init__(self, error: Exception, after: int = 0):
        super().__init__()
        self._error, self._left = error, after

    def write(self, text: str) -> int:
        self._left -= 1
        if self._left < 0:
            raise self._error
        return super().write(text)

    def flush(self) -> None:
        if self._left < 0:
            raise self._error


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """The small sweep, heard by somebody."""
    return run(tmp_path_factory.mktemp("reference") / "out", tiny_base, *ONE)


LOSSES = {
    "a terminal that was closed": OSError(errno.EIO, os.strerror(errno.EIO)),
    "a pipe that nobody reads": BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)),
    "a log on a full disk": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "a closed file": ValueError("I/O operation on closed file"),
}


@pytest.mark.parametrize("error", LOSSES.values(), ids=LOSSES)
def test_writing_to_what_is_gone_is_nothing(error: Exception) -> None:
    stream = Lasting(Lost(error, after=1))
    print("heard", file=stream)
    print("not heard", file=stream, flush=True)
    assert not stream.isatty()


@pytest.mark.parametrize("after", [0, 4])
def test_output_never_changes_the_state_of_a_phase(
    reference: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    monkeypatch.setattr("sys.stdout", Lost(LOSSES["a terminal that was closed"], after))
    out = run(tmp_path / "out", tiny_base, *ONE)
    assert same_tables(out, reference) == ""
    assert not (out / "failed").exists()


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
