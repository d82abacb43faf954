"""Weights that are read part by part, straight to where they belong.

What reads them may be a checkpoint's files, a phase's on disk, or one of these with adapters folded
in (`llama/lora.py`). The host never holds more of them than one device's shard of one parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np

Tree = Any  # nested dict of arrays, or of their shapes
Names = tuple[str, ...]  # a parameter's place in a nested dict
Bounds = tuple[tuple[int, int], ...]  # first and one past last of each axis


@runtime_checkable
class WeightReader(Protocol):
    """Reads parts of weights."""

    def __call__(self, names: Names, bounds: Bounds, dtype: np.dtype) -> np.ndarray:
        """The part of a parameter within `bounds`, in that dtype."""


def everything(read: WeightReader, shapes: Tree) -> Tree:
    """All weights on the host, each in the dtype that stands in `shapes`."""

    def one(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> np.ndarray:
        return read(_names(path), whole(shape.shape), np.dtype(shape.dtype))

    return jax.tree_util.tree_map_with_path(one, shapes)


def placed(read: WeightReader, shapes: Tree, shardings: Tree) -> Tree:
    """All weights on devices, each in the dtype that stands in `shapes`, laid out by `shardings`.
    Each process reads what its own devices hold."""

    def one(
        path: tuple[Any, ...], shape: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding
    ) -> jax.Array:
        names, dtype = _names(path), np.dtype(shape.dtype)
        return _array(shape.shape, sharding, partial(read, names, dtype=dtype), lambda b: b)

    return jax.tree_util.tree_map_with_path(one, shapes, shardings)


def stacked(readers: Sequence[WeightReader], shapes: Tree, shardings: Tree) -> Tree:
    """As `placed`, for weights side by side on a leading axis, one reader each; `shapes` are those
    of one. Where readers are the same, what they read is read once."""

    def one(
        path: tuple[Any, ...], shape: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding
    ) -> jax.Array:
        names, dtype = _names(path), np.dtype(shape.dtype)

        def read(bounds: Bounds) -> np.ndarray:
            (first, last), *inner = bounds
            part = np.empty([stop - start for start, stop in bounds], dtype)
            found: dict[int, int] = {}
            for place, reader in enumerate(readers[first:last]):
                same = found.setdefault(id(reader), place)
                part[place] = part[same] if same < place else reader(names, tuple(inner), dtype)
            return part

        def content(bounds: Bounds) -> Hashable:
            (first, last), *inner = bounds
            return (*map(id, readers[first:last]), *inner)

        return _array((len(readers), *shape.shape), sharding, read, content)

    return jax.tree_util.tree_map_with_path(one, shapes, shardings)


def _array(
    shape: tuple[int, ...],
    sharding: jax.sharding.Sharding,
    read: Callable[[Bounds], np.ndarray],
    content: Callable[[Bounds], Hashable],
) -> jax.Array:
    """One array on its devices; parts with equal `content` are read once. Not by
    `jax.make_array_from_callback`, which has what all of a host's devices hold in the host's memory
    at once."""
    holders: dict[Hashable, tuple[Bounds, list[jax.Device]]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        assert index is not None
        bounds = tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
        holders.setdefault(content(bounds), (bounds, []))[1].append(device)
    arrays: list[jax.Array] = []
    for bounds, devices in holders.values():
        arrays += jax.device_put([read(bounds)] * len(devices), devices)
        jax.block_until_ready(arrays)  # so that the next shard finds the host's memory free
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays)


def whole(shape: Sequence[int]) -> Bounds:
    """The bounds of all of an array."""
    return tuple((0, size) for size in shape)


def _names(path: tuple[Any, ...]) -> Names:
    return tuple(str(key.key) for key in path)
