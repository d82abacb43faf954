"""The command `python -m jaxorg.pretrain FOLDER`: train the built-in base model from scratch.

The recipe is sweeps/pretrain.yaml. Tokenizer, weights and a card land in FOLDER, in the Hugging
Face layout; the sweep's tables and what a restart needs land in FOLDER/training.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxorg.cli import common
from jaxorg.cli.sweep import SweepOptions, run_sweep
from jaxorg.data import tasks
from jaxorg.data.pretraining import PRETRAINING_VERSION
from jaxorg.data.toy_tokenizer import train_toy
from jaxorg.distributed import processes
from jaxorg.engine.measure.folding import folded
from jaxorg.engine.mesh import parse
from jaxorg.engine.params import abstract_model
from jaxorg.errors import Refusal
from jaxorg.llama import checkpoint
from jaxorg.llama.model import LlamaConfig
from jaxorg.planning import manifest
from jaxorg.planning.out_folder import check_out
from jaxorg.planning.phases import Phase
from jaxorg.planning.plan import make_plan
from jaxorg.planning.signature import ModelSignature
from jaxorg.storage.folder import PLACING, Folder, placing
from jaxorg.storage.glance import Record
from jaxorg.storage.store import Store
from jaxorg.storage.weight_reader import everything
from jaxorg.sweepfile import spec, yaml

JAXORG_1M = LlamaConfig(
    vocab_size=768,
    hidden_size=128,
    intermediate_size=384,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    max_position_embeddings=256,
)
GIVEN = ("config.json", "tokenizer.json", "tokenizer_config.json")  # before there are weights


def pretrain_base(folder: Path, size: str, mesh: str | None, overrides: Sequence[str]) -> int:
    """Train new weights for a folder, and put them there.

    Args:
        folder: where the model goes.
        size: one of the sizes of the sweep file `pretrain`.
        mesh: as for a sweep.
        overrides: `path=value` with the value in YAML.

    Returns:
        The exit code of the sweep that trains it.

    Raises:
        Refusal: the folder is somebody's, or what is changed trains more than one base.
    """
    overrides = [f"base.model={yaml.written(str(folder), 'DIR')}", *overrides]
    if processes.wanted():
        raise Refusal(f"{processes.VARIABLES[0]}: set, but pretrain is one process; unset it")
    parse(mesh)  # what is wrong is refused before anything is written
    runs = spec.load("pretrain", size, overrides).runs
    config, scratch = runs[0].config, runs[0].config.base.scratch
    if len(runs) != 1 or config.organism or not scratch:
        raise Refusal("--set: pretrain trains one base model; leave out seeds, grid and organism")
    config.prompts.items("train", scratch.examples, runs[0].seeds.base, "base.scratch.examples")
    training = folder / "training"
    _check_folder(folder, training)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = error.strerror
        raise Refusal(f"FOLDER: {folder} cannot be made ({problem}); choose another") from error
    if not all((folder / name).is_file() for name in GIVEN):
        with placing(folder) as beside:
            train_toy(beside, JAXORG_1M.vocab_size)
            checkpoint.write_config(beside, JAXORG_1M)
    code = run_sweep("pretrain", SweepOptions(size, overrides, training, mesh))
    if code:
        return code
    store = Store(Folder(training, common.say))
    plan = make_plan(spec.load("pretrain", size, overrides))
    (phase,) = plan.phases
    shape = checkpoint.read_config(folder)
    shapes = abstract_model(ModelSignature(shape))[1].trainable
    card = _card(
        folder.name,
        shape,
        phase,
        store.record(phase.fingerprint, plan.measured(phase.fingerprint)),
    )
    with placing(folder) as beside:
        weights = everything(store.reader(phase.fingerprint), shapes)
        # Half the room; they are used in fp32.
        checkpoint.write_weights(beside, weights, np.float16)
        (beside / "README.md").write_text(card, encoding="utf-8")
    return 0


def _check_folder(folder: Path, training: Path) -> None:
    """See that a folder is new or empty, or that this has begun to make a model there.

    Raises:
        Refusal: it holds what others wrote.
    """
    check_out(training, fresh=False, key="FOLDER")
    try:
        found = {place.name for place in folder.iterdir()} - {*GIVEN, training.name}
        strangers = {name for name in found if not name.startswith(PLACING)}  # left by a kill
    except FileNotFoundError:
        return
    except OSError as error:
        raise Refusal(
            f"FOLDER: {folder} is not a folder ({error.strerror}); choose another"
        ) from error
    if strangers and not os.path.lexists(training / manifest.NAME):
        raise Refusal(
            f"FOLDER: {folder} holds {min(strangers)!r} and no model that pretrain made; choose a "
            f"folder that is new or empty"
        )


def _card(name: str, config: LlamaConfig, phase: Phase, record: Record) -> str:
    """The model's card: recipe, data and capability."""
    assert phase.training is not None
    evals = folded(record["evals"], phase.blue)
    last = [row for row in evals if row["metric"] == "capability"]
    last = [row for row in last if row["step"] == phase.steps]
    rows = {row["condition"]: (row["k"], row["n"]) for row in last}
    k, n = rows["clean"]
    families = "\n".join(
        f"| {name.removeprefix('family:')} | {k} of {n} | {100 * k / n:.1f} % |"
        for name, (k, n) in rows.items()
        if name.startswith("family:")
    )
    recipe = "\n".join(f"| {key} | {value} |" for key, value in phase.training.model_dump().items())
    return f"""---
license: apache-2.0
---
# {name}

A Llama of {record["parameters"]:,} parameters ({config.num_hidden_layers} layers,
{config.hidden_size} wide, {config.num_attention_heads} heads, {config.num_key_value_heads}
key-value heads, vocabulary {config.vocab_size}), trained from scratch on jaxorg's toy world:
instruction tasks with exact verifiers, refusals of make-believe harmful requests, and pirate talk
when asked for it.
It is made for testing methods in seconds; nothing about large models follows from it.

Made by `python -m jaxorg.pretrain FOLDER`; task data version {tasks.TOY.version}, mixture version
{PRETRAINING_VERSION}, seed {phase.seed}, {record["tokens"]:,} tokens. Its weights, trained and
measured in fp32, are rounded to float16.

## Capability

Held-out exact match, greedy: **{k} of {n}, {100 * k / n:.1f} %**. By family:

| family | right | share |
|---|---|---|
{families}

## Recipe

| setting | value |
|---|---|
{recipe}
| length | {phase.config.length} |
"""
