"""Damage to the weights of ONE model: noise, and pruning.

Both look at each matrix by itself: leaves under `blocks` are one matrix a layer.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

Tree = Any  # nested dict of arrays
Path = tuple[Any, ...]

MATRICES = ("kernel", "embedding", "head")


def noisy(weights: Tree, key: Key[Array, ""], scale: Float[Array, ""]) -> Tree:
    """Weights with Gaussian noise on every matrix, in proportion to that matrix (after Tice et al.
    2024, "Noise Injection Reveals Hidden Capabilities of Sandbagging Language Models", who give all
    weights one size of noise). Norms, biases and adapters stay.

    Args:
        weights: one model's, nested dict of arrays.
        key: with a matrix's name, all that its noise depends on: the same whatever the scale.
        scale: the noise's standard deviation, in units of the matrix's root mean square.
    """

    def add(path: Path, leaf: Float[Array, "*L m n"]) -> Float[Array, "*L m n"]:
        name = zlib.crc32("/".join(part.key for part in path).encode())
        wide = leaf.astype(jnp.float32)
        size = jnp.sqrt(jnp.mean(wide**2, axis=(-2, -1), keepdims=True))
        draw = jax.random.normal(jax.random.fold_in(key, name), leaf.shape)
        return (wide + scale * size * draw).astype(leaf.dtype)

    return _changed(weights, MATRICES, add)


def pruned(weights: Tree, share: Float[Array, ""]) -> Tree:
    """Weights with the smallest numbers of each matrix in the blocks set to zero (magnitude
    pruning, Han et al. 2015); of equal ones, those that come first.

    Args:
        weights: one model's, nested dict of arrays.
        share: how many of a matrix's numbers become zero, 0 to 1.
    """

    def zero(_: Path, leaf: Float[Array, "L m n"]) -> Float[Array, "L m n"]:
        flat = leaf.reshape(leaf.shape[0], -1)
        order = jnp.argsort(jnp.abs(flat), axis=-1)
        count = jnp.round(share * flat.shape[-1]).astype(jnp.int32)
        kept = jnp.broadcast_to(jnp.arange(flat.shape[-1])[None] >= count, flat.shape)
        keep = jnp.put_along_axis(kept, order, kept, axis=-1, inplace=False)
        return jnp.where(keep, flat, 0).reshape(leaf.shape)

    return _changed(weights, MATRICES[:1], zero)


def still_pruned(before: Tree, after: Tree) -> Tree:
    """`after` with zeros wherever matrices in the blocks had them `before`."""

    def keep(
        path: Path, old: Float[Array, "*shape"], new: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        return jnp.where(old == 0, old, new) if path[-1].key == MATRICES[0] else new

    return jax.tree_util.tree_map_with_path(keep, before, after)


def _changed(weights: Tree, names: tuple[str, ...], change: Callable[..., Array]) -> Tree:
    """Weights with some of the leaves changed, by their last name."""

    def visit(path: Path, leaf: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return change(path, leaf) if path[-1].key in names else leaf

    return jax.tree_util.tree_map_with_path(visit, weights)
