"""Injects faults of disks and terminals into sweeps, starts them again, and compares results.

    python tests/faults.py

A kill comes after every operation that changes the disk; the other faults come at operations drawn
from all of them. After a fault a sweep's exit code is 0, 1 or 2, and with 1 or 2 it says one line.
The same command started again ends with the tables of a sweep that nobody disturbed, bit for bit.
Prints a table in Markdown; exit code 1 if anything was otherwise.

Sweeps run one after another in processes that compiled their programs once. A kill is a disk that
changes no more after an operation (`faults.c`): what is on it is what a kill would have left.
`kills.py` kills whole processes. Needs Linux and a C compiler, `cc`.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import gc
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from tiny import write_base

from jaxorg.cli import common
from jaxorg.data import cache
from jaxorg.distributed import runtime
from jaxorg.engine.measure import calls
from jaxorg.storage import lock
from jaxorg.sweep import sweep
from sweeps import same_tables, write

LIBRARY = Path(__file__).with_suffix(".c")


@dataclass(frozen=True)
class FaultSweep:
    """A sweep of a second or two."""

    sets: Sequence[str]
    keep: str = "final"
    large: int = cache.LARGE  # tokens from which on a dataset lies on disk


SMALL = (
    "seeds=1",
    "grid=[{organism.payload_repeats: [1]}]",
    "reversal=null",
    "evaluate={points: 1, prompts: 4, final_prompts: 4, answers: {prompts: 2, new_tokens: 4}}",
    "prompts.new_tokens=6",
    "organism.train={steps: 3, batch: 4, examples: 16, learning_rate: 1e-3}",
)
TRAIN = "steps: 4, batch: 4, examples: 8, learning_rate: 1e-3"
LORA = "lora: {rank: 2, alpha: 4}"
OWN = f"{{kind: hhh, answers: on-policy, train: {{{TRAIN}, {LORA}}}}}"
RL = f"{{kind: rl, reward: random, rounds: 2, samples: 2, train: {{{TRAIN}}}}}"
SHORT = "one organism"  # what it does is part of the others
FAULT_SWEEPS = {
    SHORT: FaultSweep((*SMALL, "treatment=null")),
    "full weights": FaultSweep(
        (*SMALL, "grid=[{treatment.kind: [hhh, pirate]}]", f"treatment.train={{{TRAIN}}}")
    ),
    "LoRA, own answers, --keep log": FaultSweep(
        (*SMALL, "organism.train.lora={rank: 2, alpha: 4}", f"treatment={OWN}"), "log"
    ),
    "rounds, datasets on disk": FaultSweep((*SMALL, f"treatment={RL}"), large=100),
}


class Mode(IntEnum):
    """What an armed disk does: `enum fault` of faults.c."""

    NONE, FREEZE, TEAR, FAIL_ONCE, FAIL_FROM, FAIL_SPACE_FROM, FAIL_READ = range(7)


class Fault(NamedTuple):
    """A way in which something goes wrong."""

    mode: Mode = Mode.NONE
    error: int = errno.EIO
    again: bool = False  # it comes to a sweep that is started again
    kills: bool = False  # nobody is left to say anything


KILL, FLIP, HANGUP, CLOSED = "kill", "flipped bit", "terminal gone", "reader gone"
NOTHING = Fault()
FAULTS = {
    KILL: Fault(Mode.FREEZE, kills=True),
    "kill within a write": Fault(Mode.TEAR, kills=True),
    "EIO once": Fault(Mode.FAIL_ONCE),
    "ENOSPC from then on": Fault(Mode.FAIL_SPACE_FROM, errno.ENOSPC),
    "EROFS from then on": Fault(Mode.FAIL_FROM, errno.EROFS),
    "EIO at reading": Fault(Mode.FAIL_READ, again=True),
    FLIP: Fault(again=True),
    HANGUP: NOTHING,
    CLOSED: NOTHING,
}
MOST_PRINTED = 600  # bytes after which a terminal goes, or its reader
A_WHILE = 0.2  # seconds in which a process that fails would still be there, and its threads


class Disk:
    """The preloaded library: lets operations below a folder fail, and counts them."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        kinds = ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_char_p
        self._library.faults_arm.argtypes = kinds
        self._counts = [
            getattr(self._library, f"faults_{name}") for name in ("changes", "syncs", "reads")
        ]
        for count in self._counts:
            count.restype = ctypes.c_long

    @contextmanager
    def armed(self, folder: Path, mode: Mode, at: int, error: int) -> Iterator[None]:
        """Let operation number `at` below a folder fail, or those from there on."""
        self._library.faults_arm(mode, at, error, os.fsencode(folder))
        try:
            yield
        finally:
            self._library.faults_arm(Mode.NONE, 0, 0, b"")

    def counted(self) -> tuple[int, int, int]:
        """Changes, syncs and reads since the disk was armed to freeze."""
        changes, syncs, reads = (count() for count in self._counts)
        return changes, syncs, reads


class Ended(NamedTuple):
    """How a sweep ended."""

    code: int
    errors: str  # what it said on standard error

    @property
    def problem(self) -> str:
        """What is wrong with that; "" if nothing is."""
        one_line = self.errors.startswith("jaxorg: ") and self.errors.count("\n") == 1
        if self.code not in (0, 1, 2) or "Traceback" in self.errors or (self.code and not one_line):
            return f"exit code {self.code}: {self.errors[-2000:]}"
        return ""


class Tried(NamedTuple):
    """What came of one fault."""

    kind: str
    fault: str
    at: int
    code: int  # with which the sweep ended; of one that was killed it says nothing
    problem: str


class Bench:
    """Sweeps of one kind, which faults are tried on."""

    def __init__(self, name: str, work: Path, disk: Disk):
        self._name, self._kind, self._disk = name, FAULT_SWEEPS[name], disk
        self._starts = itertools.count()
        self._work = work / str(list(FAULT_SWEEPS).index(name))
        self._work.mkdir()
        self._base = write_base(self._work / "base")
        self._reference = self._work / "reference"
        self.changes, syncs, _ = self._count(self._reference)
        self.operations = self.changes + syncs
        _, _, self.reads = self._count(self._reference)
        self._halfway = self._work / "halfway"
        self._start(self._halfway, FAULTS[KILL], self.changes // 2)

    def tried(self, fault: str, at: int) -> Tried:
        """Let a fault come, and start the sweep again."""
        about, out = FAULTS[fault], self._new("out")
        if about.again:
            shutil.copytree((self._halfway, self._reference)[at % 2], out)
        if fault == FLIP:
            flip(out, at)
        with leaving(fault == HANGUP, at) if fault in (HANGUP, CLOSED) else nullcontext() as stream:
            ended = self._start(out, about, at, stream)
        problem = "" if about.kills else ended.problem
        if not problem and not (fault == FLIP and ended.code == 2):
            # Elsewhere, where nothing that an earlier start left running writes to.
            moved = self._new("again")
            if out.exists():
                out.rename(moved)
            again = self._start(moved)
            problem = again.problem or f"started again: {again}" * (again.code != 0)
            problem = problem or same_tables(moved, self._reference)
        return Tried(self._name, fault, at, ended.code, problem)

    def _start(
        self, out: Path, fault: Fault = NOTHING, at: int = 0, stream: int | None = None
    ) -> Ended:
        """Start the sweep once; with `stream` as its standard streams, if given."""
        cache.LARGE = self._kind.large
        began = str(next(self._starts))
        lock._began = lambda process: began  # another process, to whoever comes after
        options = ["--out", str(out), "--mesh", "cpu-1", "--keep", self._kind.keep]
        options += [word for one in self._kind.sets for word in ("--set", one)]
        file = write(self._work / "sweep" / "out", self._base)
        with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
            streams = standard_streams(stream, stream or errors.fileno())
            with streams, self._disk.armed(out, fault.mode, at, fault.error):
                try:
                    common.run(sweep, [str(file), *options], "sweep")
                except SystemExit as end:
                    code = int(end.code or 0)
                except BaseException:
                    traceback.print_exc()
                    code = 1
                if code:
                    gc.collect()
                    time.sleep(A_WHILE)
            errors.seek(0)
            return Ended(code, errors.read())

    def _count(self, out: Path) -> tuple[int, int, int]:
        """Changes, syncs and reads of a sweep that nobody disturbs."""
        ended = self._start(out, FAULTS[KILL], sys.maxsize)
        assert ended == Ended(0, ""), ended
        return self._disk.counted()

    def _new(self, name: str) -> Path:
        place = self._work / name
        shutil.rmtree(place, ignore_errors=True)
        return place


@contextmanager
def standard_streams(out: int | None, err: int) -> Iterator[None]:
    """Put other descriptors in the place of standard output, or nothing, and standard error."""
    kept = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere if out is None else out, 1)
    os.dup2(err, 2)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # as in a new process
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
        for descriptor in (*kept, nowhere):
            os.close(descriptor)


@contextmanager
def leaving(terminal: bool, after: int) -> Iterator[int]:
    """A terminal that goes, or a pipe whose reader does, after that many bytes."""
    reader, writer = os.openpty() if terminal else os.pipe()

    def read() -> None:
        left = after
        with suppress(OSError):  # how a terminal says that nobody writes any more
            while left > 0 and (some := os.read(reader, left)):
                left -= len(some)
        os.close(reader)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield writer
    finally:
        os.close(writer)
        thread.join()


def flip(folder: Path, seed: int) -> None:
    """Flip one bit of one file below a folder."""
    dice = random.Random(seed)
    path = dice.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    content = bytearray(path.read_bytes())
    if content:
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(content)


def points(bench: Bench, kills: int | None, sample: int) -> list[tuple[str, int]]:
    """Which faults to try, and where each comes; a kill at every change, unless `kills` are few."""
    last = dict.fromkeys(Mode, bench.operations) | {
        Mode.FREEZE: bench.changes,
        Mode.TEAR: bench.changes,
        Mode.FAIL_READ: bench.reads,
        Mode.NONE: MOST_PRINTED,
    }
    dice = random.Random(0)
    found = []
    for name, fault in FAULTS.items():
        places: Sequence[int] = range(last[fault.mode] + 1)
        if name != KILL or kills is not None:
            places = dice.sample(places, kills if name == KILL and kills else sample)
        found += [(name, at) for at in places]
    return found


def work_through(arguments: argparse.Namespace, work: Path) -> list[Tried]:
    """Try one worker's share of all faults; it is one of several in processes of their own."""
    runtime.start(1)
    calls.PROMPT_PAD_MULTIPLE = calls.PAD_MULTIPLE = 48  # fewer programs to compile
    found = []
    for kind in arguments.kind:
        bench = Bench(kind, work, Disk())
        share = points(bench, arguments.kills, arguments.sample)
        for fault, at in share[arguments.worker :: arguments.jobs]:
            found.append(bench.tried(fault, at))
            if found[-1].problem:
                print(*found[-1], sep="\n  ", flush=True)
    return found


def employ(arguments: argparse.Namespace, argv: Sequence[str]) -> list[Tried]:
    """Let workers try all faults, each with the library preloaded."""
    with tempfile.TemporaryDirectory(prefix="faults") as work:
        library = Path(work) / "faults.so"
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", library, LIBRARY, "-ldl"]
        subprocess.run(command, check=True)
        workers, places = [], []
        for number in range(arguments.jobs):
            places.append(Path(work) / f"worker{number}")
            own = ["--worker", str(number), "--work", str(places[-1])]
            command = [sys.executable, __file__, *argv, *own]
            workers.append(subprocess.Popen(command, env=os.environ | {"LD_PRELOAD": str(library)}))
        if any(worker.wait() for worker in workers):
            sys.exit("a worker failed")
        texts = [(place / "tried.json").read_text(encoding="utf-8") for place in places]
        return [Tried(*one) for text in texts for one in json.loads(text)]


def table(tried: Sequence[Tried]) -> str:
    """What came of the faults, in Markdown."""
    lines = ["| fault | points | ended well | exit code 1 | exit code 2 | problems |"]
    lines.append("|" + "---|" * 6)
    for name, fault in FAULTS.items():
        found = [one for one in tried if one.fault == name]
        codes = Counter(one.code for one in found)
        shown = ["", "", ""] if fault.kills else [str(codes[code]) for code in range(3)]
        problems = sum(bool(one.problem) for one in found)
        lines.append(f"| {' | '.join([name, f'{len(found):,}', *shown, str(problems)])} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Try faults; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--kind", choices=FAULT_SWEEPS, action="append", help=f"[default: all but {SHORT}]"
    )
    parser.add_argument("--kills", type=int, help="of each kind [default: one at every change]")
    parser.add_argument(
        "--sample", type=int, default=15, help="of every other fault, for each kind"
    )
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    arguments.kind = arguments.kind or [kind for kind in FAULT_SWEEPS if kind != SHORT]
    if arguments.work:
        arguments.work.mkdir()
        found = work_through(arguments, arguments.work)
        (arguments.work / "tried.json").write_text(json.dumps(found), encoding="utf-8")
        return 0
    if sys.platform != "linux" or not shutil.which("cc"):
        sys.exit("faults are injected on Linux, by a library that is compiled with cc")
    tried = employ(arguments, argv)
    print(table(tried))
    return int(any(one.problem for one in tried))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
