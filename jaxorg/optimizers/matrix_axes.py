"""What Shampoo, SOAP and PSGD share: a square matrix for each side of a weight matrix.

A weight matrix [..., m, n] may have one of size m for its rows and one of size n for its columns;
leading axes count layers, each of which has its own. A side longer than `LARGEST` has none, and
vectors have none. They are kept in a dict by the axes' names beside each weight, under keys that
no parameter has: a square weight's own precision and place on a mesh are not for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxorg.optimizers.base import Tree, by_rank
from jaxorg.optimizers.factoring import transposed

LARGEST = 4096  # the longest side that gets a matrix: such a one takes 64 MiB, and long to factor
AXES = {"rows": -2, "columns": -1}

MatrixAxes = Mapping[str, Any]  # what is kept for each side of one weight matrix, by its name


def for_each(params: Tree, make: Callable[[jax.Array], Any], largest: int) -> Tree:
    """What `make` makes of the identity for every side of every weight matrix."""

    def fresh(rank: int, leaf: jax.Array) -> MatrixAxes:
        return {
            side: make(jnp.broadcast_to(jnp.eye(size), (*leaf.shape[:-2], size, size)))
            for side, axis in AXES.items()
            if rank == 2 and (size := leaf.shape[axis]) <= largest
        }

    return jax.tree.map(fresh, by_rank(params, int), params)


def apply(x: jax.Array, axes: MatrixAxes) -> jax.Array:
    """What the matrices make of the vectors along their axes of x [..., m, n]."""
    for side, matrix in axes.items():
        x = matrix @ x if side == "rows" else x @ transposed(matrix)
    return x


def gram(x: jax.Array, side: str) -> jax.Array:
    """The sum of x x^T [..., m, m] over columns of x [..., m, n], or of its rows' [..., n, n]."""
    return x @ transposed(x) if side == "rows" else transposed(x) @ x


def averaged(old: Tree, grads: Tree, decay: Any) -> Tree:
    """Moving averages of the gradients' `gram` for each side of every weight matrix."""

    def move(g: jax.Array, axes: MatrixAxes) -> MatrixAxes:
        return {s: decay * kept + (1 - decay) * gram(g, s) for s, kept in axes.items()}

    return jax.tree.map(move, grads, old)
