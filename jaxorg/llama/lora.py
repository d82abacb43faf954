"""Low-rank adapters (LoRA, Hu et al. 2021): y = x W + (alpha / rank) (x A) B.

The factor alpha / rank is data: `scaled` puts it into B before adapters are used. Adapters of
several ranks pass through the program of the largest: the columns of A and rows of B that a smaller
one lacks are zeros. Their gradients are zeros, too, so an optimizer that treats every number by
itself leaves them at that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Num

from jaxorg.storage.weight_reader import Bounds, Names, WeightReader

LORA_VERSION = 2  # raise it when fresh adapters are drawn in another way
TARGETS = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True)
class LoraConfig:
    """Which matrices get an adapter and of what rank."""

    rank: int
    targets: tuple[str, ...] = TARGETS


class LoraAdapter(nnx.Module):
    """The low-rank addition to one matrix; B starts at zero, so it starts as no change.

    A is drawn column by column (He et al. 2015, uniform): its first columns are the same whatever
    the rank.
    """

    def __init__(
        self, size: tuple[int, int], axes: tuple[str, str], config: LoraConfig, rngs: nnx.Rngs
    ):
        limit = math.sqrt(6 / size[0])
        shape = (config.rank, size[0])
        columns = jax.random.uniform(rngs.params(), shape, jnp.float32, -limit, limit)
        self.a = nnx.LoRAParam(columns.T, sharding_names=(axes[0], None))
        self.b = nnx.LoRAParam(jnp.zeros((config.rank, size[1])), sharding_names=(None, axes[1]))

    def __call__(self, x: Float[Array, "B T m"]) -> Float[Array, "B T n"]:
        """(x A) B, in the dtype of `x`; alpha / rank is in B already (`scaled`).

        Args:
            x: what the adapted matrix [m, n] takes, [B, T, m].
        """
        return x @ self.a[...].astype(x.dtype) @ self.b[...].astype(x.dtype)


def scaled(adapters: Any, scale: Any) -> Any:
    """Adapters as they are used: B times alpha / rank.

    Args:
        adapters: their nested dict, any leading axes.
        scale: alpha / rank, or one of each run [run] where adapters have such a leading axis.
    """

    def change(path: tuple[Any, ...], leaf: Any) -> Any:
        if path[-1].key != "b":
            return leaf
        lead = np.shape(scale)
        return leaf * (scale.reshape(*lead, *[1] * (leaf.ndim - len(lead))) if lead else scale)

    return jax.tree_util.tree_map_with_path(change, adapters)


def masked(adapters: Any, rank: Num[Array, ""]) -> Any:
    """Adapters with zeros beyond a rank, which need not be known when compiling.

    Args:
        adapters: nested dict of A [..., m, R] and B [..., R, n].
        rank: how many columns of A and rows of B stay, at most R; of any dtype.
    """

    def mask(path: tuple[Any, ...], leaf: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        axis = _rank_axis(path, leaf.ndim)
        assert axis is not None
        at = jax.lax.broadcasted_iota(jnp.int32, leaf.shape, axis)
        return jnp.where(at < rank, leaf, 0.0)

    return jax.tree_util.tree_map_with_path(mask, adapters)


def resized(tree: Any, rank: int) -> Any:
    """Adapters on the host, and what an optimizer keeps of their shape, with another rank: cut, or
    padded with zeros. Other leaves stay as they are."""

    def resize(path: tuple[Any, ...], leaf: Any) -> Any:
        axis = _rank_axis(path, leaf.ndim)
        if axis is None:
            return leaf
        kept = leaf[(slice(None),) * axis + (slice(rank),)]
        missing = [(0, 0)] * leaf.ndim
        missing[axis] = (0, rank - kept.shape[axis])
        return np.pad(kept, missing)

    return jax.tree_util.tree_map_with_path(resize, tree)


def folded(below: WeightReader, adapters: WeightReader, adapted: Any, scale: float) -> WeightReader:
    """Reads weights with adapters folded in: W + (alpha / rank) A B.

    Args:
        below: reads the weights, in which `kernel` stands where an adapter stands beside it.
        adapters: reads the adapters.
        adapted: the adapters' shapes.
        scale: alpha / rank.
    """
    leaves = jax.tree_util.tree_leaves_with_path(adapted)
    shapes = {tuple(str(key.key) for key in path): leaf.shape for path, leaf in leaves}
    ranks = {names[:-2]: shape[-1] for names, shape in shapes.items() if names[-1] == "a"}

    def read(names: Names, bounds: Bounds, dtype: np.dtype) -> np.ndarray:
        rank = ranks.get(names[:-1]) if names[-1] == "kernel" else None
        if rank is None:
            return below(names, bounds, dtype)
        *layers, rows, columns = bounds
        beside, every, full = (*names[:-1], "adapter"), (0, rank), np.dtype(np.float32)
        a = adapters((*beside, "a"), (*layers, rows, every), full)
        b = adapters((*beside, "b"), (*layers, every, columns), full)
        change = scale * (a @ b)
        changed: np.ndarray = (below(names, bounds, full) + change).astype(dtype)
        return changed

    return read


def _rank_axis(path: tuple[Any, ...], dimensions: int) -> int | None:
    """The axis that counts the rank in a leaf of that name: A's last, B's last but one."""
    names = [key.key for key in path[-2:] if isinstance(key, jax.tree_util.DictKey)]
    if names[:1] != ["adapter"]:
        return None
    return dimensions - 1 if names[1] == "a" else dimensions - 2
