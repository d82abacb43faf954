"""Meshes: names, axes, where arrays lie, and that runs stay apart whatever the mesh."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hlo
import jax
import numpy as np
import pytest
from weights import held

from jaxorg import optimizers
from jaxorg.distributed import runtime
from jaxorg.engine.batch import Batch
from jaxorg.engine.cohort import CHUNK_STEPS, Trainer
from jaxorg.engine.mesh import (
    SLICES,
    described,
    foreseen,
    layout,
    make_mesh,
    own_cpu_devices,
    parse,
)
from jaxorg.errors import Refusal
from jaxorg.llama.lora import LoraConfig
from jaxorg.llama.model import LlamaConfig
from jaxorg.planning.signature import ModelSignature, Signature
from sweeps import assert_same_rows, run

eight = pytest.mark.skipif(jax.device_count() < 8, reason="the next test runs it on 8 devices")

MODEL = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    tie_word_embeddings=False,
)
LENGTH, BATCH, STEPS, RUNS = 12, 4, 5, 4
MESHES = ("run=4,fsdp=2", "run=2,fsdp=2,tensor=2", "run=1,fsdp=4,tensor=2")
LORA = [pytest.param(None, id="full"), pytest.param(LoraConfig(4), id="lora")]


@pytest.mark.skipif(jax.device_count() >= 8, reason="this is that process")
@pytest.mark.long
def test_on_eight_devices() -> None:
    """In a process of their own: with other devices, sums are made in another order."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TEST_DEVICES": "8"}
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout[-5000:]
    assert "skipped" not in found.stdout  # for want of devices


def trained(mesh: str, lora: LoraConfig | None) -> tuple[np.ndarray, Trainer, str]:
    """Train four runs on a mesh: losses, the trainer and its compiled program."""
    devices = make_mesh(parse(mesh))
    signature = Signature(ModelSignature(MODEL, lora), LENGTH, BATCH, "adamw", "cosine")
    trainer = Trainer(signature, devices, RUNS // devices.shape["run"])
    own = {**optimizers.FAMILIES["adamw"].defaults, "clip": 1.0, "warmup": 0.1}
    own |= {"lora_rank": 4, "lora_scale": 2.0} if lora else {}
    hyper = {name: np.full(RUNS, value, np.float32) for name, value in own.items()}
    hyper["learning_rate"] = np.arange(1, RUNS + 1, dtype=np.float32) * 1e-3
    placed = trainer.place(hyper)
    keys = trainer.place(jax.vmap(jax.random.key)(np.arange(RUNS)))
    host = jax.device_get(trainer.initialise(keys))
    lanes = [held(jax.tree.map(lambda x, at=at: x[at], host)) for at in range(RUNS)]
    state, frozen = trainer.begin(keys, placed, trainer.place_weights(lanes))
    shape = (RUNS, CHUNK_STEPS, BATCH)
    tokens = np.random.default_rng(0).integers(0, 64, (*shape, LENGTH), np.int32)
    spans = np.broadcast_to(np.array([4, LENGTH], np.int32), (*shape, 2))
    batch = trainer.place_rows(Batch(tokens, spans), 2)
    arguments = (frozen, placed, state, batch, 0, STEPS, 2 * STEPS)
    text = trainer.train.lower(*arguments).compile().as_text()
    _, log = trainer.train(*arguments)
    return np.asarray(log.loss)[:, :STEPS], trainer, text


@eight
@pytest.mark.parametrize("lora", LORA)
def test_losses_do_not_depend_on_the_mesh_and_no_collective_crosses_run(
    lora: LoraConfig | None,
) -> None:
    alone, _, _ = trained("cpu-1", lora)
    for mesh in MESHES:
        losses, trainer, text = trained(mesh, lora)
        np.testing.assert_allclose(losses, alone, rtol=1e-5)
        found = list(hlo.groups(text))
        assert found  # a run is spread over devices, so they exchange something
        runs = np.arange(8).reshape(trainer.mesh.shape["run"], -1)
        for kind, group in found:
            rows = {int(np.argwhere(runs == device)[0, 0]) for device in group}
            assert len(rows) == 1, f"{kind} connects {group} on {mesh}"


GOLDEN = {
    "embedding": ("run", "tensor", "fsdp"),
    "head": ("run", "tensor", "fsdp"),
    "norm.scale": ("run", "fsdp"),
    "blocks.attention_norm.scale": ("run", None, "fsdp"),
    "blocks.mlp_norm.scale": ("run", None, "fsdp"),
    "blocks.attention.q.kernel": ("run", None, "fsdp", "tensor"),
    "blocks.attention.k.kernel": ("run", None, "fsdp", "tensor"),
    "blocks.attention.v.kernel": ("run", None, "fsdp", "tensor"),
    "blocks.attention.o.kernel": ("run", None, "tensor", "fsdp"),
    "blocks.mlp.gate.kernel": ("run", None, "fsdp", "tensor"),
    "blocks.mlp.up.kernel": ("run", None, "fsdp", "tensor"),
    "blocks.mlp.down.kernel": ("run", None, "tensor", "fsdp"),
}


@eight
def test_every_weight_and_its_moments_lie_where_the_table_says() -> None:
    signature = Signature(ModelSignature(MODEL), LENGTH, BATCH, "adamw", "cosine")
    trainer = Trainer(signature, make_mesh(parse("run=2,fsdp=2,tensor=2")), 2)
    state = trainer.state_shardings
    weights = specs(state.trainable)
    assert weights == GOLDEN
    moments = specs(state.optimizer)
    for name, axes in GOLDEN.items():
        found = [spec for path, spec in moments.items() if path.endswith(f".{name}")]
        assert found == [axes, axes]  # Adam keeps two moments


def specs(tree: object) -> dict[str, tuple[str | None, ...]]:
    """Mesh axes by dotted name."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        ".".join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))
        if all(isinstance(key, jax.tree_util.DictKey) for key in path)
        else jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.spec)
        for path, leaf in leaves
    }


@eight
def test_rows_do_not_depend_on_the_mesh(tiny_base: Path, tmp_path: Path) -> None:
    small = ("grid=[{organism.payload_repeats: [1, 2]}]", "seeds=1", "reversal=null")
    one = run(tmp_path / "1" / "out", tiny_base, *small)
    for mesh in MESHES[:2]:
        other = run(tmp_path / mesh / "out", tiny_base, *small, mesh=mesh)
        assert_same_rows(one, other, rtol=1e-5)


@pytest.mark.parametrize(
    ("mesh", "devices", "axes"),
    [
        ("cpu-8", 8, (8, 1, 1)),
        ("run=8", 8, (8, 1, 1)),
        ("fsdp=2", 8, (4, 2, 1)),
        ("tensor=2", 8, (4, 1, 2)),
        ("run=2", 8, (2, 4, 1)),
        ("cpu-8,run=2,tensor=2", 8, (2, 2, 2)),
        ("v4-64,fsdp=4", 32, (8, 4, 1)),
    ],
)
def test_axes_that_are_not_given_are_filled(mesh: str, devices: int, axes: tuple[int, ...]) -> None:
    assert tuple(layout(parse(mesh), devices, 10**12, 0).values()) == axes


def test_the_mesh_is_foreseen_where_its_devices_are_known() -> None:
    assert foreseen(parse("v4-64"), 60 * 10**9, 1) == "v4-64, 32 x chip (run=8, fsdp=4)"
    assert foreseen(parse("cpu-2,fsdp=2"), 0, 1) == described(make_mesh(parse("cpu-2,fsdp=2")))
    assert foreseen(parse("gpu-8"), 0, 1) is None


def test_a_lone_run_has_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "cores", lambda: 4)
    for name in ("cpu", None):
        made = [own_cpu_devices(parse(name), runs) for runs in (1, 3, 4, 9)]
        assert made == [1, 3, 4, 4]
        assert [foreseen(parse(name), 0, runs) for runs in (1, 9)] == [
            "1 x cpu",
            "4 x cpu (run=4)",
        ]
    assert own_cpu_devices(parse("cpu-2"), 1) == 2
    assert own_cpu_devices(parse("run=2"), 1) == 2


def test_a_run_gets_as_few_devices_as_have_room_for_it() -> None:
    gigabyte = 10**9
    for needed, fsdp in ((1, 1), (18, 1), (19, 2), (72, 4), (73, 8), (10_000, 32)):
        found = layout(parse("v4-64"), 32, 30 * gigabyte, needed * gigabyte)
        assert (found["fsdp"], found["run"]) == (fsdp, 32 // fsdp)


def test_what_rows_cannot_be_split_over_is_split_by_tensor() -> None:
    axes = layout(parse("v4-64"), 32, 10**9, 10**10, rows=8)  # over 32 devices
    assert axes == {"run": 1, "fsdp": 8, "tensor": 4}
    axes = layout(parse("v4-64"), 32, 10**12, 0, rows=8, least=4)
    assert axes == {"run": 8, "fsdp": 4, "tensor": 1}


@pytest.mark.parametrize(
    ("name", "topology", "devices"),
    [
        ("v4-8", "v4:2x2x1", 4),
        ("v4-64", "v4:2x4x4", 32),
        ("v4-128", "v4:4x4x4", 64),
        ("v5p-64", "v5:2x4x4", 32),
        ("v5e-1", "v5e:1x1", 1),
        ("v5e-256", "v5e:16x16", 256),
        ("v6e-8", "v6e:2x4", 8),
    ],
)
def test_slices_are_what_their_names_say(name: str, topology: str, devices: int) -> None:
    assert (SLICES[name].topology, SLICES[name].devices) == (topology, devices)


@pytest.mark.parametrize(
    "name", ["v4-65", "run=0", "run=2,run=2", "cpu,gpu", "cpu--1", "fsdp", ","]
)
def test_an_unknown_mesh_is_refused(name: str) -> None:
    with pytest.raises(Refusal, match="--mesh: .* is unknown; use cpu"):
        parse(name)


def test_axes_that_do_not_fill_the_devices_are_refused() -> None:
    with pytest.raises(Refusal, match="run=3,fsdp=2 does not fill 8 devices"):
        layout(parse("run=3,fsdp=2"), 8, 10**9, 0)
    with pytest.raises(Refusal, match="needs 16 devices, but there are"):
        make_mesh(parse("run=16"))
