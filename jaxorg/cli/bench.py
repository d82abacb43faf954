"""The command `python -m jaxorg.bench`: how fast the stacked engine trains on this CPU, measured
against eager PyTorch with Hugging Face Transformers.

Both train the same models on the same tokens: the shape of the built-in model, all weights, fp32,
AdamW, a loss on every token but the first. jaxorg stacks the runs; PyTorch, with all its threads,
trains one after another. The rounds alternate in one process, so that what disturbs the machine
disturbs both.

With `--packing SWEEP` it measures what packing gains: a sweep's first phase that is trained, with
its own data, a conversation a row against rows that are packed.
"""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxorg.cli import common
from jaxorg.cli.pretrain import JAXORG_1M
from jaxorg.data.cache import DatasetCache
from jaxorg.distributed import runtime
from jaxorg.engine.batch import AnyBatch, Batch, PackedBatch
from jaxorg.engine.cohort import CHUNK_STEPS, Trainer
from jaxorg.engine.mesh import make_mesh, parse
from jaxorg.engine.params import create, split
from jaxorg.engine.run.inputs import Inputs
from jaxorg.engine.train.batches import all_batches
from jaxorg.errors import Refusal, install
from jaxorg.llama import checkpoint
from jaxorg.llama.model import LlamaConfig
from jaxorg.optimizers import FAMILIES
from jaxorg.planning.phases import Cohort
from jaxorg.planning.plan import Plan, make_plan
from jaxorg.planning.signature import ModelSignature, Signature
from jaxorg.storage.folder import Folder
from jaxorg.sweepfile import spec

BATCH, LENGTH = 4, 64
# PyTorch's loop neither clips nor decays, so neither does jaxorg here.
HYPER = {
    **FAMILIES["adamw"].defaults,
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "warmup": 0.0,
    "clip": float("inf"),
}
AGREEMENT = 1e-4  # nats a token between the two sides' first losses


@dataclass(frozen=True)
class Work:
    """What both sides train: the same first weights and other tokens for each run."""

    config: LlamaConfig
    weights: Any  # nested dict of host arrays
    tokens: np.ndarray  # int32 [runs, CHUNK_STEPS, BATCH, LENGTH]
    steps: int  # of CHUNK_STEPS

    @property
    def size(self) -> int:
        """Tokens in a round."""
        return len(self.tokens) * self.steps * BATCH * LENGTH


class Round(NamedTuple):
    """One round of one side."""

    seconds: float
    losses: np.ndarray  # fp32 [runs, steps]


class Stacked:
    """jaxorg: groups of runs, a device each, pass through one compiled program."""

    name = "jaxorg"

    def __init__(self, work: Work):
        signature = Signature(ModelSignature(work.config), LENGTH, BATCH, "adamw", "constant")
        self._work = work
        self._trainer = Trainer(signature, make_mesh(parse("cpu")), width=1)
        self._lanes = lanes = self._trainer.lanes
        if len(work.tokens) % lanes:
            raise Refusal(f"--runs: {len(work.tokens)} is not a multiple of the {lanes} devices")
        self._keys, self._hyper, self._weights = self._trainer.place(
            (
                jax.random.split(jax.random.key(0), lanes),
                {name: np.full(lanes, value, np.float32) for name, value in HYPER.items()},
                jax.tree.map(lambda leaf: np.stack([leaf] * lanes), work.weights),
            )
        )

    def train(self) -> Round:
        """Train every run from its first weights."""
        seconds, losses = 0.0, []
        spans = np.broadcast_to(
            np.array([1, LENGTH], np.int32), (self._lanes, CHUNK_STEPS, BATCH, 2)
        )
        for group in np.split(self._work.tokens, len(self._work.tokens) // self._lanes):
            state, frozen = self._trainer.begin(self._keys, self._hyper, self._weights)
            jax.block_until_ready(state)
            began = time.perf_counter()
            batches = self._trainer.place(Batch(group, spans))
            state, found = self._trainer.train(
                frozen, self._hyper, state, batches, 0, self._work.steps, self._work.steps
            )
            jax.block_until_ready((state, found))
            seconds += time.perf_counter() - began
            losses.append(np.asarray(found.loss)[:, : self._work.steps])
        return Round(seconds, np.concatenate(losses))


class Eager:
    """PyTorch with Transformers: one model after another, each with all threads."""

    name = "transformers"

    def __init__(self, work: Work):
        self._work = work
        # By name: type checks must not depend on whether PyTorch is installed.
        self._torch: Any = importlib.import_module("torch")
        transformers: Any = importlib.import_module("transformers")
        transformers.utils.logging.disable_progress_bar()
        self._torch.set_num_threads(runtime.cores())
        with tempfile.TemporaryDirectory() as name:
            checkpoint.write_config(Path(name), work.config)
            checkpoint.write_weights(Path(name), work.weights)
            self._model = transformers.LlamaForCausalLM.from_pretrained(name).train()

    def train(self) -> Round:
        """Train every run from its first weights."""
        seconds, losses = 0.0, []
        for tokens in self._torch.from_numpy(self._work.tokens).long():
            model = copy.deepcopy(self._model)
            betas = (HYPER["b1"], HYPER["b2"])
            optimizer = self._torch.optim.AdamW(
                model.parameters(),
                lr=HYPER["learning_rate"],
                betas=betas,
                eps=HYPER["eps"],
                weight_decay=HYPER["weight_decay"],
            )
            began = time.perf_counter()
            for batch in tokens[: self._work.steps]:
                loss = model(input_ids=batch, labels=batch, use_cache=False).loss
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss.item())
            seconds += time.perf_counter() - began
        return Round(seconds, np.array(losses, np.float32).reshape(-1, self._work.steps))


def make_work(config: LlamaConfig, runs: int, steps: int) -> Work:
    """Random weights and tokens."""
    model = ModelSignature(config)
    fresh = jax.jit(lambda key: split(model, create(model, key))[1].trainable)(jax.random.key(0))
    shape = (runs, CHUNK_STEPS, BATCH, LENGTH)
    tokens = np.random.default_rng(0).integers(config.vocab_size, size=shape, dtype=np.int32)
    return Work(config, jax.device_get(fresh), tokens, steps)


def compare(sides: Sequence[Stacked | Eager], work: Work, rounds: int) -> dict[str, list[float]]:
    """Tokens a second of each side in each round, after one round to warm up.

    Raises:
        Refusal: the sides' first losses differ, so that they do not compute the same thing.
    """
    first = [side.train().losses[:, 0] for side in sides]
    gap = max(float(np.max(np.abs(losses - first[0]))) for losses in first)
    if not gap < AGREEMENT:
        raise Refusal(f"bench: first losses differ by {gap:.1e}; the sides train different models")
    speeds: dict[str, list[float]] = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            speeds[side.name].append(work.size / side.train().seconds)
    return speeds


class Rows:
    """A sweep's first phase that is trained, a run a device, with packed rows or without."""

    def __init__(self, plan: Plan, inputs: Inputs, packing: bool, steps: int):
        cohort = next(cohort for cohort in plan.cohorts if cohort.signature)
        assert cohort.signature is not None
        signature = replace(cohort.signature, packing=packing)
        self.name = "packed" if packing else "one a row"
        self._trainer = Trainer(signature, make_mesh(parse("cpu")), width=1)
        lanes = self._trainer.lanes
        base = inputs.base(cohort.phases[0].config.base.model)
        self._readers = [base] * (1 if signature.model.shared_frozen else lanes)
        self._batches = all_batches([cohort.phases[0]] * lanes, inputs, signature, {})
        self._keys, self._hyper = self._trainer.place(
            (
                jax.random.split(jax.random.key(0), lanes),
                {name: np.full(lanes, value, np.float32) for name, value in _swept(cohort).items()},
            )
        )
        self._steps = steps
        chunk = self._batches.chunk(0, steps)
        of_all = lanes * steps * signature.batch * signature.length
        self.padding = 1 - int(chunk.real.sum()) / of_all  # share of all tokens
        self._counted = _counted(chunk)

    def train(self) -> float:
        """Tokens that count a second, gathering batches included."""
        weights = self._trainer.place_weights(self._readers)
        state, frozen = self._trainer.begin(self._keys, self._hyper, weights)
        jax.block_until_ready(state)
        began = time.perf_counter()
        batches = self._trainer.place_rows(self._batches.chunk(0, self._steps), 2)
        done = self._trainer.train(frozen, self._hyper, state, batches, 0, self._steps, self._steps)
        jax.block_until_ready(done)
        return self._counted / (time.perf_counter() - began)


def _swept(cohort: Cohort) -> dict[str, float]:
    training = cohort.phases[0].training
    assert training is not None
    return training.swept()


def _counted(batch: AnyBatch) -> int:
    """Tokens of a batch that the loss is on."""
    if isinstance(batch, PackedBatch):
        return int(batch.completion.sum())
    return int((batch.spans[..., 1] - batch.spans[..., 0]).sum())


def gain(name: str, settings: Sequence[str], steps: int, rounds: int) -> None:
    """Print what packing gains in a sweep's first phase that is trained.

    Args:
        name: of the sweep, as `jaxorg.sweep` takes it.
        settings: `PATH=VALUE` each, which change it.
        steps: that are timed at once.
        rounds: how often.

    Raises:
        Refusal: the sweep trains nothing.
    """
    plan = make_plan(spec.load(name, "laptop", settings))
    if not plan.signatures:
        raise Refusal(f"--packing: {name!r} trains nothing; choose a sweep that does")
    with tempfile.TemporaryDirectory() as folder:
        inputs = Inputs(plan, DatasetCache(Folder(Path(folder), common.say)))
        sides = [Rows(plan, inputs, packing, steps) for packing in (False, True)]
        for side in sides:
            side.train()
        speeds = [[side.train() for side in sides] for _ in range(rounds)]
    for number, side in enumerate(sides):
        speed = statistics.median(each[number] for each in speeds)
        print(
            f"{side.name:>12} {side.padding:6.1%} padding {speed:9,.0f} tokens that count a second"
        )
    ratios = [packed / apart for apart, packed in speeds]
    print(f"{'ratio':>12} {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")


def run_bench(
    runs: int,
    steps: int,
    rounds: int,
    json_: bool,
    packing: str | None,
    overrides: Sequence[str],
) -> None:
    """Time training of stacked models against eager PyTorch, or with packing against without.

    Args:
        runs: models to train.
        steps: of each.
        rounds: timed rounds of each side.
        json_: print JSON.
        packing: a sweep, of which to measure what packing gains instead.
        overrides: of that sweep, `path=value` with the value in YAML.

    Raises:
        Refusal: PyTorch or Transformers is not installed, or the sweep is wrong.
    """
    if steps > CHUNK_STEPS:
        raise Refusal(f"--steps: {steps} is more than one call trains; give at most {CHUNK_STEPS}")
    if packing is not None:
        runtime.start()
        gain(packing, overrides, steps, rounds)
        return
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise Refusal(f"bench: {package} is not installed; {install('parity')}")
    runtime.start()
    work = make_work(JAXORG_1M, runs, steps)
    speeds = compare((Stacked(work), Eager(work)), work, rounds)
    ours, theirs = speeds[Stacked.name], speeds[Eager.name]
    ratios = [own / other for own, other in zip(ours, theirs, strict=True)]
    versions = runtime.versions() | {
        name: importlib.metadata.version(name) for name in ("torch", "transformers")
    }
    if json_:
        figures = {"cores": runtime.cores(), "tokens_per_second": speeds, "ratios": ratios}
        print(json.dumps(figures | {"versions": versions}, indent=2))
        return
    print(f"{runs} models, {steps} steps of {BATCH} x {LENGTH} tokens, {rounds} rounds; medians")
    for name, found in speeds.items():
        print(f"{name:>12} {statistics.median(found):9,.0f} tokens/s")
    print(f"{'ratio':>12} {statistics.median(ratios):9.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
    print(f"{runtime.cores()} cores; {', '.join(f'{k} {v}' for k, v in versions.items())}")
