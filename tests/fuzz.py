"""Hostile input by the thousand: `python tests/fuzz.py --cases 5000`.

Each case replaces one of a sweep's files by a hostile one and asks for a dry run, in a process
whose memory is limited. It must be accepted, or refused in one clear line with exit code 2, within
ten seconds and with nothing written. The exit code is 1 if any was not.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import multiprocessing
import os
import resource
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import fuzz_cases
from fuzz_cases import FILES_BY_KIND, Case

from jaxorg.escape_controls import escape_controls

SECONDS = 10.0  # for one case
MEMORY = 3 * 2**30  # bytes of addresses beyond those of a worker at rest
RESIDENT = 2**30  # bytes of memory that one case may take
LONGEST = 1100  # characters of a refusal


@dataclass(frozen=True)
class Outcome:
    """What came of a case: accepted, refused, or a problem in words."""

    kind: str
    number: int
    verdict: str  # "accepted", "refused" or "problem"
    seconds: float
    said: str = ""


def run(cases: int, seed: int = 0, workers: int = 1, only: str | None = None) -> list[Outcome]:
    """Run `cases` cases, every kind equally often, or the single one that `only` names."""
    kinds = itertools.cycle(FILES_BY_KIND)
    jobs = [(next(kinds), number // len(FILES_BY_KIND)) for number in range(cases)]
    if only:
        kind, _, number = only.partition(":")
        jobs = [(kind, int(number))]
    left, found = iter(jobs), list[Outcome]()
    threads = [threading.Thread(target=_drive, args=(left, found, seed)) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(found) != len(jobs):
        raise RuntimeError(f"{len(jobs) - len(found)} cases were not run")
    return sorted(found, key=lambda outcome: (outcome.kind, outcome.number))


_TAKING = threading.Lock()


def _drive(jobs: Iterator[tuple[str, int]], found: list[Outcome], seed: int) -> None:
    """Hand cases to a worker process, one after another; one that hangs or dies is replaced."""
    worker = None
    while True:
        with _TAKING:
            job = next(jobs, None)
        if job is None:
            break
        worker = worker or _Worker(seed)
        outcome, alive = worker.try_case(*job)
        found.append(outcome)
        if not alive:
            worker.stop()
            worker = None
    if worker:
        worker.stop()


class _Worker:
    """A process that tries cases."""

    def __init__(self, seed: int):
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, seed), daemon=True)
        self._process.start()
        theirs.close()
        if problem := self._ours.recv():
            raise RuntimeError(f"the valid files do not do: {problem}")

    def try_case(self, kind: str, number: int) -> tuple[Outcome, bool]:
        """What came of a case, and whether the worker lives."""
        began = time.monotonic()
        try:
            self._ours.send((kind, number))
            self._ours.recv()  # the case is made
            began = time.monotonic()
            if self._ours.poll(SECONDS):
                return self._ours.recv(), True
            said = f"takes more than {SECONDS:.0f} s"
        except (EOFError, OSError):
            self._process.join(5)
            said = f"ends the process (exit code {self._process.exitcode})"
        return Outcome(kind, number, "problem", time.monotonic() - began, said), False

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def _work(pipe: Connection, seed: int) -> None:
    """What a worker does: make a case, try it, say what came of it."""
    from jaxorg.distributed import runtime

    runtime.start(1)
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "work"
        folder.mkdir()
        os.chdir(folder)
        fuzz_cases.write_valid(Path())
        said = os.open(f"{top}/stderr", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 2)
        for file in (*fuzz_cases.PROMPT_FILES, "toy"):
            valid = try_case(Case("valid", 0, "", b"", ("--set", f"prompts.source={file}")), said)
            if valid.verdict != "accepted":
                pipe.send(valid.said)
        limit = _status("VmSize") + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        pipe.send("")
        while True:
            kind, number = pipe.recv()
            case = fuzz_cases.make(kind, number, seed, Path())
            pipe.send("made")
            pipe.send(try_case(case, said))


def try_case(case: Case, said: int) -> Outcome:
    """Put a case's file in place, ask for a dry run, judge it, and put the valid file back.

    `said` is the file that standard error goes to.
    """
    from jaxorg.data import prompts

    prompts._read.cache_clear()  # the same path holds something else now
    file = Path(case.file)
    valid = file.read_bytes() if case.file else b""
    if case.file:
        file.write_bytes(case.content)
    before = _snapshot()
    os.ftruncate(said, 0)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    resident, began = _status("VmRSS"), time.monotonic()
    problem, code, out = _command(case.argv)
    seconds = time.monotonic() - began
    sys.stderr.flush()
    line = os.pread(said, 10_000, 0).decode(errors="replace")
    peak = _status("VmHWM") - resident
    if not problem:
        problem = _misconduct(code, out, line)
    if peak > RESIDENT:
        problem = f"takes {peak / 2**20:.0f} MiB of memory; {problem}"
    if _snapshot() != before:
        problem = f"changes files; {problem}"
    if case.file:
        file.write_bytes(valid)
    verdict = "problem" if problem else {0: "accepted", 2: "refused"}[code or 0]
    return Outcome(case.kind, case.number, verdict, seconds, problem or line.strip())


def _command(argv: Sequence[str]) -> tuple[str, int | None, str]:
    """Ask for a dry run: a problem if there is one, the exit code, and what was printed."""
    from jaxorg.cli import common
    from jaxorg.sweep import sweep

    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            common.run(sweep, ["sweep.yaml", "--dry-run", *argv], name="sweep")
    except SystemExit as done:
        return "", done.code, out.getvalue()  # type: ignore[return-value]
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-4:]
        places = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(where))
        return f"raises {type(error).__name__}: {str(error)[:200]} at {places}", None, ""


def _misconduct(code: int | None, out: str, line: str) -> str:
    """What is wrong with how a case was accepted or refused, if anything."""
    if code in (0, None):
        return f"is accepted, but says {line[:300]!r}" if line else ""
    if code != 2:
        return f"exits with {code}"
    one = line.startswith("jaxorg: ") and line.endswith("\n") and line.count("\n") == 1
    if not one or out or len(line) > LONGEST or escape_controls(line) != line:
        return f"is not refused in one clear line: {line[:300]!r} {out[:100]!r}"
    return ""


def _snapshot() -> dict[str, tuple[int, int]]:
    """Every file in the working folder by size and time of change."""
    stats = {str(path): path.lstat() for path in Path().rglob("*")}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def _status(name: str) -> int:
    """A figure of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def table(outcomes: Sequence[Outcome]) -> str:
    """Counts by kind."""
    rows = [("kind", "cases", "accepted", "refused", "slowest", "problems")]
    for kind in (*FILES_BY_KIND, "all"):
        own = [outcome for outcome in outcomes if kind in (outcome.kind, "all")]
        counts = [sum(o.verdict == v for o in own) for v in ("accepted", "refused", "problem")]
        slowest = max((outcome.seconds for outcome in own), default=0.0)
        taken, refused, problems = map(str, counts)
        rows.append((kind, str(len(own)), taken, refused, f"{slowest:.1f} s", problems))
    return "\n".join("".join(f"{cell:>11}" for cell in row) for row in rows)


def main() -> int:
    """Run the cases, print what came of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", help="kind:number of a single case, as problems name it")
    given = parser.parse_args()
    began = time.monotonic()
    outcomes = run(given.cases, given.seed, given.workers, given.only)
    for outcome in outcomes:
        if outcome.verdict == "problem" or given.only:
            name = f"--seed {given.seed} --only {outcome.kind}:{outcome.number}"
            print(f"{name} {outcome.verdict} ({outcome.seconds:.1f} s) {outcome.said}")
    print(table(outcomes))
    print(f"seed {given.seed}, {time.monotonic() - began:.0f} s, {given.workers} workers")
    return any(outcome.verdict == "problem" for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main())
