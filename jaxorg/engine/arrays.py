"""Arrays between the host and a mesh, whose devices may belong to several processes.

Nothing else moves them while runs are trained or measured: a transfer that nobody asked for makes a
device wait (tests refuse them, `tests/conftest.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding
from jaxtyping import Key

from jaxorg.engine.batch import Array
from jaxorg.engine.params import Tree

PART = 2**30  # bytes of an array that are gathered at once


def put(tree: Tree, shardings: Tree) -> Tree:
    """Host arrays, the same ones in every process, on devices.

    Args:
        tree: the arrays.
        shardings: one for each of them, or one for all.
    """
    each = jax.tree.leaves(shardings)
    if all(sharding.is_fully_addressable for sharding in each):
        return jax.device_put(tree, shardings)
    # `device_put` would do it, too, but exchange every array to see that it is the same.
    leaves, structure = jax.tree.flatten(tree)
    each = each * len(leaves) if len(each) == 1 else each
    return jax.tree.unflatten(structure, [_put(*pair) for pair in zip(leaves, each, strict=True)])


def fetch(tree: Tree) -> Tree:
    """Device arrays as host arrays. All processes call this, and each gets all that there is.

    What devices of several processes hold is gathered on the devices, in parts: each of them needs
    room for PART bytes.
    """
    return jax.device_get(jax.tree.map(_whole, tree))


def keys(seeds: Sequence[int], names: int | Sequence[int]) -> Key[jax.Array, " run"]:
    """Random keys [run] of seeds, with what names their use folded in: one for all, or one each."""
    return folded(_keys(jax.device_put(np.array(seeds).astype(np.int32))), names)


def folded(keys: Key[jax.Array, " run"], names: int | Sequence[int]) -> Key[jax.Array, " run"]:
    """Random keys with a name folded into each.

    Args:
        keys: [run].
        names: one for all, or one each [run].
    """
    each = np.broadcast_to(np.array(names, np.uint32), keys.shape)
    found: Key[jax.Array, " run"] = _folded(keys, jax.device_put(each))
    return found


def chosen(
    keys: Key[jax.Array, "run all"], numbers: Sequence[Sequence[int]]
) -> Key[jax.Array, "run some"]:
    """Some of each run's random keys, by their numbers.

    Args:
        keys: [run, all].
        numbers: of each run, as many.
    """
    found: Key[jax.Array, "run some"] = _chosen(keys, jax.device_put(np.array(numbers, np.int32)))
    return found


_keys = jax.jit(jax.vmap(jax.random.key))
_folded = jax.jit(jax.vmap(jax.random.fold_in))
_chosen = jax.jit(jax.vmap(lambda keys, numbers: keys[numbers]))


def _put(leaf: Array, sharding: Sharding) -> Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(leaf), sharding))
    host = np.asarray(leaf)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _whole(leaf: Array) -> Array:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return leaf
    if leaf.nbytes > PART and leaf.ndim > 1:
        return np.stack([_whole(leaf[at]) for at in range(len(leaf))])
    return multihost_utils.process_allgather(leaf, tiled=True)
