"""Several processes on one sweep, as processes of their own: two, with two CPU devices each."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import SHALLOW

from jaxorg.distributed import processes
from jaxorg.engine.mesh import make_mesh, own_cpu_devices, parse
from jaxorg.engine.params import abstract_model
from jaxorg.errors import Refusal
from jaxorg.planning.signature import ModelSignature
from jaxorg.storage.folder import Folder
from jaxorg.storage.store import Store
from jaxorg.storage.weight_reader import everything
from sweeps import assert_same_rows, run, same_tables, start, table, write

SMALL = (  # all weights, then adapters
    "grid=[{organism.payload_repeats: [1, 2]}]",
    "seeds=2",
    "organism.train.steps=300",  # time enough for a signal
    "treatment.train.lora={rank: 2, alpha: 4}",
    "reversal=null",
    "evaluate.points=1",
)
SPREAD = (
    "grid=[{organism.payload_repeats: [1]}]",
    "seeds=1",
    "treatment=null",
    "reversal=null",
    "evaluate.points=1",
)
# XLA gives its CPU thread pool as many threads as a process has devices; sums are made in as many
# parts. With pools of one size, the programs of two processes compute what those of one do.
ENVIRONMENT = {**os.environ, "NPROC": "4"}
FAILING = """
from jaxorg.cli import common
from jaxorg.engine.run.group import Group
from jaxorg.sweep import sweep

def broken(*_):
    raise ZeroDivisionError("here alone")

Group.train = broken
common.run(sweep)
"""


IN_PARTS = """
from jaxorg.cli import common
from jaxorg.engine import arrays
from jaxorg.sweep import sweep

arrays.PART = 1000
common.run(sweep)
"""


def command(
    out: Path, base: Path, mesh: str, overrides: Sequence[str] = SMALL, code: str = ""
) -> list[str]:
    sets = [word for override in overrides for word in ("--set", override)]
    program = ["-c", code] if code else ["-m", "jaxorg.sweep"]
    file = str(write(out, base))
    return [sys.executable, *program, file, "--out", str(out), "--mesh", mesh, *sets]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def pair(*commands: Sequence[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that know of each other; none of them outlives the block."""
    about = {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
        "JAX_NUM_PROCESSES": str(len(commands)),
    }
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(
            words,
            env={**ENVIRONMENT, **about, "JAX_PROCESS_ID": str(number)},
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        for number, words in enumerate(commands)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def ended(started: list[subprocess.Popen[str]]) -> tuple[list[int], list[str], list[str]]:
    """Exit codes, what was printed, and what was said beside it."""
    said = [process.communicate(timeout=600) for process in started]
    codes = [process.returncode for process in started]
    return codes, [out for out, _ in said], [errors for _, errors in said]


def run_pair(words: Sequence[str]) -> None:
    with pair(words, words) as started:
        codes, printed, errors = ended(started)
    assert codes == [0, 0], errors
    assert "phases to do, on 4 x cpu" in printed[0]
    assert printed[1] == ""


def run_alone(words: Sequence[str]) -> None:
    found = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


@pytest.mark.long
def test_two_processes_that_a_signal_to_one_stops_go_on_and_write_the_tables_of_one(
    tiny_base: Path, tmp_path: Path
) -> None:
    two, one = tmp_path / "2" / "out", tmp_path / "1" / "out"
    words = command(two, tiny_base, "cpu-4")
    with pair(words, words) as started:
        until = time.monotonic() + 600
        while not list(two.glob("partial/*")):
            assert time.monotonic() < until
            assert all(process.poll() is None for process in started)
            time.sleep(0.01)
        started[1].send_signal(signal.SIGTERM)
        codes, _, errors = ended(started)
    assert codes == [75, 75], errors
    assert "stopping at the next safe point" in errors[1]
    assert list(two.glob("partial/*"))
    run_pair(words)
    run_alone(command(one, tiny_base, "cpu-4"))
    assert same_tables(two, one) == ""
    assert len(table(one, "runs")) == 4


@pytest.mark.long
def test_a_run_that_is_spread_over_both_processes_has_the_same_rows(
    tiny_base: Path, tmp_path: Path
) -> None:
    two, one = tmp_path / "2" / "out", tmp_path / "1" / "out"
    run_pair(command(two, tiny_base, "run=1,fsdp=4", SPREAD, IN_PARTS))
    run_alone(command(one, tiny_base, "run=1,fsdp=4", SPREAD))
    assert_same_rows(one, two, rtol=1e-5)
    (fingerprint,) = table(one, "evals").query("phase == 'organism'").fingerprint.unique()
    shapes = abstract_model(ModelSignature(SHALLOW))[1].trainable
    ours, theirs = (
        everything(Store(Folder(out, pytest.fail)).reader(fingerprint), shapes)
        for out in (one, two)
    )
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=1e-4), theirs, ours)


@pytest.mark.long
def test_what_fails_in_one_process_alone_ends_both(tiny_base: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = command(out, tiny_base, "cpu-4", SPREAD)
    with pair(words, command(out, tiny_base, "cpu-4", SPREAD, FAILING)) as started:
        codes, _, errors = ended(started)
    line = "jaxorg: process 1 failed: ZeroDivisionError: here alone; all processes end\n"
    assert codes == [1, 1]
    assert errors[0] == line
    assert errors[1].startswith("Traceback")
    assert errors[1].endswith(line)
    assert not (out / "failed").exists()


def test_a_mesh_that_processes_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "count", lambda: 2)
    assert own_cpu_devices(parse("cpu-4"), 1) == 2
    with pytest.raises(Refusal, match="--mesh: 'cpu-3' has 3 devices, which 2 processes cannot"):
        own_cpu_devices(parse("cpu-3"), 1)
    with pytest.raises(Refusal, match=r"--mesh: 'cpu-1' has 1 devices, but the processes have \d"):
        make_mesh(parse("cpu-1"))


@pytest.mark.parametrize("given", processes.VARIABLES)
def test_half_of_what_makes_several_processes_is_refused(
    given: str, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(given, "1")
    with pytest.raises(Refusal, match=f"{given}: set, but not JAX_.*; set all three, or none"):
        start(tmp_path / "out", tiny_base)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("address", "count", "index", "said"),
    [
        ("here", "2", "0", "JAX_COORDINATOR_ADDRESS: 'here' is not HOST:PORT"),
        ("here:1", "two", "0", "JAX_PROCESS_ID: '0' of JAX_NUM_PROCESSES 'two'"),
        ("here:1", "2", "2", "JAX_PROCESS_ID: '2' of JAX_NUM_PROCESSES '2'"),
    ],
)
def test_wrong_words_for_processes_are_refused(
    address: str,
    count: str,
    index: str,
    said: str,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in zip(processes.VARIABLES, (address, count, index), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(Refusal, match=said):
        run(tmp_path / "out", tiny_base)
    assert not (tmp_path / "out").exists()
