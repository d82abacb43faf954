"""Weights in safetensors files as Transformers reads them: one, or several and an index."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jaxorg.storage.folder import write_tensors

PYTORCH = {"format": "pt"}  # how Transformers lays out what it reads
SHARD_BYTES = 5 * 10**9  # of one file of weights, as on the Hugging Face Hub


def write_shards(
    folder: Path,
    tensors: Iterator[tuple[str, np.ndarray]],
    sizes: Sequence[int],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write tensors into an existing folder: model.safetensors, or several files of up to
    `shard_bytes` and an index of them.

    Args:
        folder: where they go.
        tensors: one after another, by name; no more than a file of them is in memory.
        sizes: the bytes of each, in their order.
        shard_bytes: of a file, unless one tensor alone is larger.
    """
    counts = _shards(sizes, shard_bytes)
    names = [f"model-{n:05}-of-{len(counts):05}.safetensors" for n in range(1, len(counts) + 1)]
    if len(counts) == 1:
        names = ["model.safetensors"]
    places: dict[str, str] = {}
    for name, count in zip(names, counts, strict=True):
        shard = dict(itertools.islice(tensors, count))
        write_tensors(folder / name, shard, PYTORCH)
        places |= dict.fromkeys(shard, name)
    if len(names) > 1:
        index = {"metadata": {"total_size": sum(sizes)}, "weight_map": places}
        text = json.dumps(index, indent=2) + "\n"
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _shards(sizes: Sequence[int], most: int) -> list[int]:
    """How many tensors, in their order, go into each file; one that is larger stands alone."""
    counts, room = [0], most
    for size in sizes:
        if size > room and counts[-1]:
            counts.append(0)
            room = most
        counts[-1] += 1
        room -= size
    return counts
