"""Runs a smoke sweep of a thousand runs and watches its memory and its disk.

    python tests/thousand.py

Prints resident memory and disk use over time; exit code 1 if memory grew between the second and
the last quarter of the sweep by more than a twentieth.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

EVERY = 2.0  # seconds
ARMS = 4  # of the quickstart


def resident(process: int) -> float:
    """A process's resident memory in MB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    return 0.0


def used(folder: Path) -> float:
    """MB in a folder."""
    found = subprocess.run(["du", "-sk", folder], capture_output=True, text=True)
    return int(found.stdout.split()[0]) / 1000 if found.stdout else 0.0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--keep", default="none")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="thousand") as work:
        out = Path(work) / "out"
        sets = ["--set", f"seeds={-(-arguments.runs // ARMS)}", "--keep", arguments.keep]
        sets += ["--set", "organism.train.steps=20"]  # how well it is learnt does not matter here
        command = [sys.executable, "-m", "jaxorg.sweep", "quickstart", "--size", "smoke"]
        process = subprocess.Popen(
            [*command, "--out", str(out), *sets], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        began, samples = time.monotonic(), []
        while process.poll() is None:
            samples.append((time.monotonic() - began, resident(process.pid), used(out)))
            time.sleep(EVERY)
        if process.returncode:
            assert process.stderr
            print(process.stderr.read().decode())
            return 1
        runs = pd.read_parquet(out / "runs")
    print(f"{len(runs)} runs, {(runs.status == 'done').sum()} done, in {samples[-1][0]:.0f} s")
    seconds, memory, disk = np.array(samples).T
    quarters = np.array_split(np.arange(len(samples)), 4)
    table = Table("quarter", "until, s", "memory, MB (median)", "most", "disk, MB (most)")
    for number, part in enumerate(quarters, start=1):
        numbers = (seconds[part].max(), np.median(memory[part]), memory[part].max())
        table.add_row(str(number), *(f"{n:.0f}" for n in numbers), f"{disk[part].max():.0f}")
    Console().print(table)
    growth = np.median(memory[quarters[3]]) / np.median(memory[quarters[1]]) - 1
    print(f"growth from the second to the last quarter: {100 * growth:.1f} %")
    return 1 if growth > 0.05 else 0


if __name__ == "__main__":
    sys.exit(main())
