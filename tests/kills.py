"""Kills sweeps at random moments, starts them again, and compares what they come to.

    python tests/kills.py --kills 60

Half of the kills come from outside after a random time, half from inside while something is being
written. Each sweep is started again until it ends; then its tables must equal those of a sweep
that nobody disturbed, bit for bit. Prints a table; exit code 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxorg.cli import common
from jaxorg.engine.run import group
from jaxorg.storage import folder, results, store
from jaxorg.sweep import sweep
from sweeps import same_tables

LORA = "lora={rank: 4, alpha: 8}"
PHASES = ("organism", "treatment", "reversal")
SHORT = "organism.train.steps=20"  # how well it is learnt does not matter here
SWEEPS: dict[str, Sequence[str]] = {
    "full weights": (SHORT,),
    "LoRA": (SHORT, *(f"{phase}.train.{LORA}" for phase in PHASES)),
    "long phases": tuple(f"{phase}.train.steps=150" for phase in PHASES),
}
WRITES = 0.05  # seconds within which a kill from inside a write comes


@dataclass
class Result:
    """What happened to one kind of sweep."""

    kills: int = 0
    inside: int = 0  # of them inside a write
    sweeps: int = 0  # that came to their end after all
    losses: list[str] = field(default_factory=list)
    steps: int = 0  # done again, most after one kill
    calls: int = 0  # the same in calls that train


def start(out: Path, log: Path, options: Sequence[str], aim: int | None) -> int:
    """Start a sweep in a process of its own; its id. With `aim` it dies in its write number aim."""
    child = os.fork()  # JAX is imported, but no back end runs yet
    if child:
        return child
    code: Any = 70  # a mistake of this file
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(log.with_suffix(".err"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        watch_chunks(log)
        if aim is not None:
            die_in_write(aim)
        sets = [word for option in options for word in ("--set", option)]
        common.run(sweep, ["quickstart", "--size", "smoke", "--out", str(out), *sets], "sweep")
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def watch_chunks(log: Path) -> None:
    """Log every call that trains before it begins: which phases, from which step, how many."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    gather, make = group.Batches.chunk, group.all_batches

    def remember(phases: Any, *others: Any) -> Any:
        batches: Any = make(phases, *others)
        batches.fingerprints = sorted({phase.fingerprint for phase in phases})
        return batches

    def logged(self: Any, start: int, count: int) -> Any:
        line = {"phases": self.fingerprints, "start": start, "count": count}
        os.write(handle, f"{json.dumps(line)}\n".encode())
        return gather(self, start, count)

    group.all_batches, group.Batches.chunk = remember, logged  # type: ignore[method-assign]


def die_in_write(aim: int) -> None:
    """Make write number `aim` of this process its last: at a random moment in it."""
    count = 0

    def dying(write: Callable[..., Any]) -> Callable[..., Any]:
        def written(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == aim:
                delay = random.uniform(0, WRITES) * (random.random() < 0.5)
                if delay == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                kill = (os.getpid(), signal.SIGKILL)
                threading.Timer(delay, os.kill, kill).start()
            return write(*args, **options)

        return written

    folder._sync = dying(folder._sync)  # files are written and not yet renamed, or just renamed
    folder.write_json = dying(folder.write_json)
    store.write_json = dying(store.write_json)
    store.write_tensors = dying(store.write_tensors)
    store.Store._write = dying(store.Store._write)  # type: ignore[method-assign]
    results._write_parquet = dying(results._write_parquet)


def redone(log: Path) -> tuple[int, int]:
    """Most steps, and most calls, of training that one kill made a phase do again."""
    done: dict[str, list[int]] = defaultdict(list)  # where the calls of each phase ended
    most_steps = most_calls = 0
    for line in log.read_text().splitlines():
        call = json.loads(line)
        for fingerprint in call["phases"]:
            again = [end for end in done[fingerprint] if end > call["start"]]
            most_steps = max(most_steps, max(again, default=call["start"]) - call["start"])
            most_calls = max(most_calls, len(again))
            kept = [end for end in done[fingerprint] if end <= call["start"]]
            done[fingerprint] = [*kept, call["start"] + call["count"]]
    return most_steps, most_calls


def torture(
    name: str, options: Sequence[str], kills: int, work: Path, dice: random.Random, result: Result
) -> None:
    """Kill sweeps of one kind `kills` times."""
    place = work / name.replace(" ", "-")
    place.mkdir(parents=True)
    reference, log = place / "reference", place / "undisturbed.log"
    began = time.monotonic()
    os.waitpid(start(reference, log, options, None), 0)
    lasts = time.monotonic() - began
    while result.kills < kills:
        result.sweeps += 1
        out = place / f"sweep{result.sweeps}"
        log = out.with_suffix(".log")
        while not killed_to_end(out, log, options, lasts, dice, result):
            pass
        if loss := same_tables(out, reference):
            result.losses.append(f"{out}: {loss}")
        steps, calls = redone(log)
        result.steps, result.calls = max(result.steps, steps), max(result.calls, calls)


def killed_to_end(
    out: Path,
    log: Path,
    options: Sequence[str],
    lasts: float,
    dice: random.Random,
    result: Result,
) -> bool:
    """Start a sweep and kill it, if it does not end before; whether it did."""
    inside = dice.random() < 0.5
    random.seed(dice.random())  # for the child
    child = start(out, log, options, dice.randint(1, 60) if inside else None)
    if not inside:
        time.sleep(dice.uniform(0, lasts))
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == -signal.SIGKILL:
        result.kills += 1
        result.inside += inside
        return False
    if code != 0:
        errors = log.with_suffix(".err").read_text()
        result.losses.append(f"{out}: exit code {code}: {errors[-500:]}")
    return True


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=60, help="over all kinds of sweep")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], help="as for a sweep")
    parser.add_argument("--kind", choices=SWEEPS, action="append", help="[default: all]")
    arguments = parser.parse_args(argv)
    kinds = arguments.kind or list(SWEEPS)
    found = {kind: Result() for kind in kinds}
    dice = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="kills") as work:
        for kind in kinds:
            share = -(-arguments.kills // len(kinds))
            options = [*SWEEPS[kind], *arguments.set]
            torture(kind, options, share, Path(work), dice, found[kind])
    table = Table("sweeps", "kills", "inside a write", "ended", "done again, most", "losses")
    for kind, result in found.items():
        again = f"{result.steps} steps, {result.calls} calls"
        numbers = (result.kills, result.inside, result.sweeps)
        table.add_row(kind, *map(str, numbers), again, str(len(result.losses)))
    Console().print(table)
    losses = [loss for result in found.values() for loss in result.losses]
    print("\n".join(losses))
    return 1 if losses else 0


if __name__ == "__main__":
    sys.exit(main())
