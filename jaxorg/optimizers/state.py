"""What an optimizer keeps for the parameters: for which one, and in which precision.

In bfloat16 a parameter-shaped leaf takes half the memory between steps; a step computes with it in
fp32. It is rounded at random, up or down, so that its mean is exact (Gupta et al. 2015, "Deep
Learning with Limited Numerical Precision"). Rounded to the nearest, a second moment would never
decay: with b2 = 0.999 a step takes a thousandth off, and bfloat16 knows steps of 1/256.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, BFloat16, Float32, Key

Tree = Any  # of arrays, or of their shapes


def mirrored(state: Tree, params: Tree, values: Sequence[Any], otherwise: Any) -> Tree:
    """For each leaf of an optimizer's state the value of the parameter that it is kept for.

    Args:
        state: an optimizer's state, abstract or not.
        params: the parameters' nested dict, abstract or not.
        values: one for each leaf of `params`.
        otherwise: for leaves of no parameter's shape. The others stand under its names, too.
    """
    known = [
        (_names(path), leaf.shape, value)
        for (path, leaf), value in zip(
            jax.tree_util.tree_leaves_with_path(params), values, strict=True
        )
    ]

    def value_of(path: tuple[Any, ...], leaf: Any) -> Any:
        names = _names(path)
        fitting = (
            value
            for parameter, shape, value in known
            if names and parameter[-len(names) :] == names and shape == leaf.shape
        )
        return next(fitting, otherwise)

    return jax.tree_util.tree_map_with_path(value_of, state)


def narrowed(state: Tree, params: Tree) -> Tree:
    """A fresh state whose parameter-shaped floats are bfloat16."""
    wanted = mirrored(state, params, [True] * len(jax.tree.leaves(params)), False)
    return jax.tree.map(
        lambda x, own: x.astype(jnp.bfloat16) if own and x.dtype == jnp.float32 else x,
        state,
        wanted,
    )


def widened(state: Tree) -> Tree:
    """A state to compute with: fp32 where it is kept in bfloat16."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, state)


def rounded(state: Tree, like: Tree, key: Key[Array, ""]) -> Tree:
    """A state to keep: rounded at random where the one before it is bfloat16.

    Args:
        state: what a step came to, in fp32.
        like: the state before it, as it was kept.
        key: what the rounding of all leaves is drawn from.
    """
    leaves, structure = jax.tree.flatten(state)
    kept = [
        to_bfloat16(leaf, jax.random.fold_in(key, i)) if old.dtype == jnp.bfloat16 else leaf
        for i, (leaf, old) in enumerate(zip(leaves, jax.tree.leaves(like), strict=True))
    ]
    return jax.tree.unflatten(structure, kept)


def to_bfloat16(x: Float32[Array, "*shape"], key: Key[Array, ""]) -> BFloat16[Array, "*shape"]:
    """fp32 rounded to bfloat16 at random: one of the two neighbours, the nearer the likelier.

    bfloat16 is the upper half of fp32. The lower half, added to a random number of its width,
    carries over as often as it is large.

    Args:
        x: any shape.
        key: of the draws, one a number.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    upper = ((bits + noise) >> 16).astype(jnp.uint16)
    return jax.lax.bitcast_convert_type(upper, jnp.bfloat16)


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
    """The trailing dictionary keys of a path."""
    names: list[str] = []
    for key in reversed(path):
        if not isinstance(key, jax.tree_util.DictKey):
            break
        names.insert(0, str(key.key))
    return tuple(names)
