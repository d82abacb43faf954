"""Prints the table of costs for docs/optimizers.md: `make optimizer-costs`. Wants an idle machine.

What is trained is the quickstart's organism on jaxorg-1m, 8 rows of 48 tokens a step. Families take
turns in each round, and a family's cost is the median of its rounds over AdamW's of the same one:
what disturbs the machine disturbs all. A round has whole cadences of what families renew now and
then. Whether a family trains is seen by training it.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from jaxorg.data.cache import DatasetCache
from jaxorg.distributed import runtime
from jaxorg.engine.cohort import CHUNK_STEPS, Trainer
from jaxorg.engine.mesh import described, make_mesh, parse
from jaxorg.engine.run.inputs import Inputs
from jaxorg.engine.step import draws
from jaxorg.engine.train.batches import all_batches
from jaxorg.optimizers import FAMILIES
from jaxorg.planning.plan import make_plan
from jaxorg.storage.folder import Folder
from jaxorg.sweepfile import spec

AGAINST = "adamw"
COMMON = [
    "length=48",
    "organism.train.batch=8",
    "treatment=null",
    "reversal=null",
    "controls=[]",
    "grid=[{organism.payload_repeats: [1]}]",
    "seeds=1",
]
LORA = "organism.train.lora={rank: 8, alpha: 16}"
NARROW_WEIGHTS = "base.dtype=bfloat16"
NARROW_STATE = "organism.train.state_dtype=bfloat16"
RATES = {"sgd": 0.1, "lion": 1e-4, "prodigy": 1.0, "muon": 1e-2, "lamb": 1e-2, "adafactor": 1e-2}
LOW = 1e-3  # of all other families
# Adafactor's is relative to a matrix's own numbers, and half of the adapters begin at zero.
LORA_RATES = {"adafactor": 0.1}
STEPS = 2 * math.lcm(*(family.refresh for family in FAMILIES.values() if family.refresh))
assert STEPS <= CHUNK_STEPS  # a call of a program takes no more
FALLS = 0.8  # the last losses are at most so many times the first ones, where a family trains
ENDS = 10  # losses that are the first ones, or the last
STATE = "state, bytes a number that is trained: all weights, LoRA"
TRAINS = [
    "trains all weights",
    "LoRA",
    "both with `base.dtype: bfloat16`",
    "`state_dtype: bfloat16`",
]


@dataclass(frozen=True)
class Place:
    """Devices, and how many runs each trains side by side."""

    mesh: str
    width: int
    name: str  # in the table


class Job:
    """A family's training program, and runs that it trains."""

    def __init__(self, name: str, place: Place, folder: Path, changes: Sequence[str]):
        rates = RATES | (LORA_RATES if LORA in changes else {})
        rate = f"organism.train.learning_rate={rates.get(name, LOW)}"
        settings = [*COMMON, f"organism.train.optimizer={name}", rate, *changes]
        plan = make_plan(spec.load("quickstart", "laptop", settings))
        cohort = next(cohort for cohort in plan.cohorts if cohort.signature)
        phase, signature = cohort.phases[0], cohort.signature
        assert signature is not None
        inputs = Inputs(plan, DatasetCache(Folder(folder, print)))
        self.trainer = trainer = Trainer(signature, make_mesh(parse(place.mesh)), place.width)
        lanes = trainer.lanes
        keys = trainer.place(jax.random.split(jax.random.key(0), lanes))
        swept = {name: np.full(lanes, value, np.float32) for name, value in phase.swept.items()}
        self._hyper = trainer.place(swept) | ({"key": keys} if draws(signature) else {})
        weights = trainer.place_weights([inputs.base(phase.config.base.model)] * lanes)
        self._state, self._frozen = trainer.begin(keys, self._hyper, weights)
        batches = all_batches([phase] * lanes, inputs, signature, {}).chunk(0, CHUNK_STEPS)
        self._batches = trainer.place_rows(batches, 2)

    def train(self, steps: int) -> tuple[float, np.ndarray]:
        """Seconds that so many more steps take, and their losses [run, steps]."""
        began = time.perf_counter()
        self._state, log = jax.block_until_ready(
            self.trainer.train(
                self._frozen, self._hyper, self._state, self._batches, 0, steps, CHUNK_STEPS
            )
        )
        return time.perf_counter() - began, np.asarray(log.loss)[:, :steps]

    def state_bytes(self) -> float:
        """Of the optimizer's state, for each number that is trained."""
        state = self.trainer.abstract_state
        kept = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.optimizer))
        return float(kept / sum(leaf.size for leaf in jax.tree.leaves(state.trainable)))


@dataclass(frozen=True)
class Measured:
    """What was found of the families in one setting, by their names."""

    costs: Mapping[str, float]  # times AdamW's
    milliseconds: float  # a step of AdamW
    state_bytes: Mapping[str, float]


def measure(
    names: Sequence[str], rounds: int, folder: Path, place: Place, changes: Sequence[str]
) -> Measured:
    """Time all families in turns, after one round to compile and warm up."""

    def warm(name: str) -> Job:
        say(f"{place.name} {' '.join(changes)}: {name} compiles")
        job = Job(name, place, folder, changes)
        job.train(STEPS)
        return job

    with ThreadPoolExecutor(runtime.cores()) as dataset:
        jobs = dict(zip(names, dataset.map(warm, names), strict=True))
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            seconds[name].append(jobs[name].train(STEPS)[0])
    costs = {
        name: statistics.median(a / b for a, b in zip(own, seconds[AGAINST], strict=True))
        for name, own in seconds.items()
    }
    milliseconds = 1e3 * statistics.median(seconds[AGAINST]) / STEPS
    shown = ", ".join(f"{name} {cost:.2f}" for name, cost in costs.items())
    say(f"{AGAINST} takes {milliseconds:.2f} ms a step; times that: {shown}")
    return Measured(costs, milliseconds, {n: job.state_bytes() for n, job in jobs.items()})


def trains(name: str, folder: Path, place: Place, *changes: str) -> str:
    """Whether a family lowers the loss, by training a run with it; or that it is refused."""
    say(f"{' '.join(changes) or 'all weights'}: {name} trains")
    try:
        job = Job(name, place, folder, changes)
    except runtime.Refusal as refusal:
        if NARROW_STATE in changes and str(refusal).startswith(NARROW_STATE.partition("=")[0]):
            return "refused"
        raise
    losses = job.train(CHUNK_STEPS)[1]
    fell = losses[:, -ENDS:].mean() < FALLS * losses[:, :ENDS].mean()
    return "yes" if fell and np.isfinite(losses).all() else "no"


def what_it_trains(name: str, folder: Path, place: Place) -> list[str]:
    """The cells under `TRAINS`."""
    both = {trains(name, folder, place, NARROW_WEIGHTS, *changes) for changes in ((), (LORA,))}
    return [
        trains(name, folder, place),
        trains(name, folder, place, LORA),
        "yes" if both == {"yes"} else "no",
        trains(name, folder, place, NARROW_STATE),
    ]


def say(line: str) -> None:
    """Show what goes on beside the table."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", help="some of them; all without a name")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--mesh", default="cpu", help="cpu, with a run a core, or gpu")
    parser.add_argument("--width", type=int, default=16, help="runs side by side on a gpu")
    parser.add_argument("--costs", action="store_true", help="without what each family trains")
    asked = parser.parse_args()
    runtime.start()
    alone = Place(f"{asked.mesh}-1", 1, "one run")
    many = (
        Place("cpu", 1, "a run a core")  # as sweeps have it
        if asked.mesh == "cpu"
        else Place(f"{asked.mesh}-1", asked.width, f"{asked.width} side by side")
    )
    settings = [(place, changes) for changes in ([], [LORA]) for place in (alone, many)]
    names = [AGAINST, *(n for n in asked.families or FAMILIES if n != AGAINST)]
    columns = [f"all weights: {alone.name}", many.name, f"LoRA: {alone.name}", many.name]
    head = ["family", *columns, STATE, *([] if asked.costs else TRAINS)]
    table = [head, ["---"] * len(head)]
    with tempfile.TemporaryDirectory() as folder:
        found = [measure(names, asked.rounds, Path(folder), *setting) for setting in settings]
        for name in names:
            sizes = ", ".join(f"{each.state_bytes[name]:.3g}" for each in (found[0], found[-1]))
            costs = [f"{each.costs[name]:.2f}" for each in found]
            trained = [] if asked.costs else what_it_trains(name, Path(folder), alone)
            table.append([f"`{name}`", *costs, sizes, *trained])
    for cells in table:
        print(f"| {' | '.join(cells)} |")
    times = ", ".join(f"{each.milliseconds:.1f}" for each in found)
    versions = ", ".join(" ".join(each) for each in runtime.versions().items())
    print(f"\nMedians of {asked.rounds} rounds of {STEPS} steps. A step of `{AGAINST}` takes")
    print(f"{times} ms in these columns. {described(make_mesh(parse(many.mesh)))}; {versions}.")


if __name__ == "__main__":
    main()
