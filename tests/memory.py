"""Writes a checkpoint and measures the host's memory while it is read into shards.

    python tests/memory.py --megabytes 1000 --devices 4

Exit code 1 if, beyond the arrays themselves, more than 1.2 times the largest shard plus 1 GB was
in use. CPU devices hold their shards in the host's memory, so these are taken off.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import jax
import ml_dtypes
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import save_file

from jaxorg.distributed import runtime
from jaxorg.engine.params import abstract_model
from jaxorg.llama import checkpoint
from jaxorg.llama.model import LlamaConfig
from jaxorg.planning.signature import ModelSignature
from jaxorg.storage import weight_reader

MEGA = 10**6


class Measured(NamedTuple):
    """Megabytes, and seconds."""

    checkpoint: float
    arrays: float
    largest: float  # shard
    peak: float  # beyond the arrays
    seconds: float


def write(folder: Path, megabytes: int) -> None:
    """Write a bfloat16 model of about this size, each file half of it."""
    wide = 1024 if megabytes > 500 else 512
    layers = 12
    size = (megabytes * MEGA / 2 / wide - 2 * 4 * wide * layers) / (3 * layers + 1)
    config = LlamaConfig(
        vocab_size=int(size),
        hidden_size=wide,
        intermediate_size=int(size) // 8 * 8,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=wide // 8,
        max_position_embeddings=128,
    )
    checkpoint.write_config(folder, config)
    rng = np.random.default_rng(0)
    held = {
        source.name: rng.integers(0, 2**14, shape[::-1] if source.transposed else shape, np.uint16)
        for source, shape in checkpoint._wanted(
            abstract_model(ModelSignature(config))[1].trainable, checkpoint._SOURCES
        )
    }
    names = sorted(held)
    places = {name: f"model-{i * 2 // len(names)}.safetensors" for i, name in enumerate(names)}
    for file in set(places.values()):
        content = {n: held[n].view(ml_dtypes.bfloat16) for n in names if places[n] == file}
        save_file(content, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def resident(field: str) -> float:
    """`VmRSS` or `VmHWM` of this process, in megabytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / MEGA
    raise AssertionError(field)


def read(folder: Path, devices: int) -> Measured:
    """Read the checkpoint in this process."""
    runtime.start(devices)
    mesh = jax.make_mesh((devices,), ("fsdp",))
    shapes = abstract_model(ModelSignature(checkpoint.read_config(folder)))[1].trainable

    def split(shape: jax.ShapeDtypeStruct) -> NamedSharding:
        last = "fsdp" if shape.shape[-1] % devices == 0 else None
        return NamedSharding(mesh, PartitionSpec(*[None] * (len(shape.shape) - 1), last))

    shardings = jax.tree.map(split, shapes)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before, start = resident("VmRSS"), time.perf_counter()
    weights = jax.tree.leaves(
        weight_reader.placed(checkpoint.reader(folder, shapes), shapes, shardings)
    )
    seconds = time.perf_counter() - start
    shards = [shard.data.nbytes for leaf in weights for shard in leaf.addressable_shards]
    arrays = sum(shards) / MEGA
    held = sum(path.stat().st_size for path in checkpoint.weight_files(folder)) / MEGA
    peak = resident("VmHWM") - before - arrays
    return Measured(held, arrays, max(shards) / MEGA, peak, seconds)


def measure(folder: Path, megabytes: int, devices: int) -> Measured:
    """Write a checkpoint, and read it in a process of its own."""
    write(folder, megabytes)
    command = [sys.executable, __file__, "--read", str(folder), "--devices", str(devices)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Measured(*json.loads(done.stdout))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--read", type=Path)
    options = parser.parse_args()
    if options.read:
        print(json.dumps(read(options.read, options.devices)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options.megabytes, options.devices)
    print(", ".join(f"{name} {value:.1f}" for name, value in found._asdict().items()))
    return int(found.peak > 1.2 * found.largest + 1000)


if __name__ == "__main__":
    sys.exit(main())
