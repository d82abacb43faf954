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
from jaxtyping import Array, Float

from jaxorg.optimizers.base import Tree, by_rank
from jaxorg.optimizers.factoring import transposed

LARGEST = 4096  # the longest side that gets a matrix: such a one takes 64 MiB, and long to factor
AXES = {"rows": -2, "columns": -1}

MatrixAxes = Mapping[str, Any]  # what is kept for each side of one weight matrix, by its name


def for_each(params: Tree, make: Callable[[Array], Any], largest: int) -> Tree:
    """What `make` makes of the identity for every side of every weight matrix.

    Args:
        params: the parameters' nested dict.
        make: takes identities [*lead, s, s], one a layer.
        largest: the longest side that gets something.

    Returns:
        `MatrixAxes` in the place of every parameter; of a vector, empty.
    """

    def fresh(rank: int, leaf: Float[Array, " ..."]) -> MatrixAxes:
        return {
            side: make(jnp.broadcast_to(jnp.eye(size), (*leaf.shape[:-2], size, size)))
            for side, axis in AXES.items()
            if rank == 2 and (size := leaf.shape[axis]) <= largest
        }

    return jax.tree.map(fresh, by_rank(params, int), params)


def apply(x: Float[Array, "*shape"], axes: MatrixAxes) -> Float[Array, "*shape"]:
    """What the matrices make of the vectors along their axes: R x for rows, x C^T for columns.

    Args:
        x: weights, or something of their shape [*lead, m, n]; or a vector, which has no `axes`.
        axes: R [*lead, m, m] as `rows`, C [*lead, n, n] as `columns`, both or either.
    """
    for side, matrix in axes.items():
        x = matrix @ x if side == "rows" else x @ transposed(matrix)
    return x


def gram(x: Float[Array, "*lead m n"], side: str) -> Float[Array, "*lead s s"]:
    """x x^T [*lead, m, m] for rows, x^T x [*lead, n, n] for columns.

    Args:
        x: [*lead, m, n].
        side: a name of `AXES`.
    """
    return x @ transposed(x) if side == "rows" else transposed(x) @ x


def averaged(old: Tree, grads: Tree, decay: Any) -> Tree:
    """Moving averages of the gradients' `gram` for each side of every weight matrix."""

    def move(g: Float[Array, " ..."], axes: MatrixAxes) -> MatrixAxes:
        return {s: decay * kept + (1 - decay) * gram(g, s) for s, kept in axes.items()}

    return jax.tree.map(move, grads, old)
