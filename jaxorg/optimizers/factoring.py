"""QR, inverse roots and triangular solves from matrix products, for any leading axes.

Not those of `jnp.linalg`: on a CPU these are LAPACK kernels that wait on a worker of XLA's thread
pool for other workers of it, so a program with several of them stops for good (jaxlib 0.10.2,
`jax::ParallelBatchMap`). On accelerators products are what is fast.

Matrices are [*lead, m, n], square ones [*lead, s, s]; each is worked on by itself.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

BLOCK = 32  # columns that are made orthogonal to earlier ones, or rows that are solved for, at once
NEWTON = 24  # iterations: enough for eigenvalues that differ by a factor of 1e7


def transposed(matrix: Float[Array, "*lead m n"]) -> Float[Array, "*lead n m"]:
    """Each matrix transposed.

    Args:
        matrix: [*lead, m, n].
    """
    return jnp.swapaxes(matrix, -1, -2)


def trace(matrix: Float[Array, "*lead s s"]) -> Float[Array, "*lead 1 1"]:
    """The trace of each matrix, in a shape that multiplies it.

    Args:
        matrix: [*lead, s, s].
    """
    return jnp.trace(matrix, axis1=-2, axis2=-1)[..., None, None]


def identity(matrix: Float[Array, "*lead s s"]) -> Float[Array, "*lead s s"]:
    """As many identities of that size and dtype.

    Args:
        matrix: [*lead, s, s], whose numbers do not matter.
    """
    return jnp.broadcast_to(jnp.eye(matrix.shape[-1], dtype=matrix.dtype), matrix.shape)


def grouped(function: Callable[..., Array], *trees: Any) -> Any:
    """Map matrices of trees that are alike, all those of one size in one call: it is loops over
    columns that take time, to run and to compile.

    Args:
        function: takes an array [count, s, s] from each tree and returns one such array.
        trees: of arrays [*lead, s, s], with equal structures and shapes.

    Returns:
        A tree like the first.
    """
    columns = [jax.tree.leaves(tree) for tree in trees]
    sizes = defaultdict(list)
    for number, leaf in enumerate(columns[0]):
        sizes[leaf.shape[-1]].append(number)
    found = list(columns[0])
    for size, members in sizes.items():
        flat = [[column[i].reshape(-1, size, size) for i in members] for column in columns]
        ends = list(itertools.accumulate(len(part) for part in flat[0]))
        whole = function(*map(jnp.concatenate, flat))
        for i, part in zip(members, jnp.split(whole, ends[:-1]), strict=True):
            found[i] = part.reshape(columns[0][i].shape)
    return jax.tree.unflatten(jax.tree.structure(trees[0]), found)


@jax.jit
def orthonormal(matrix: Float[Array, "*lead s s"]) -> Float[Array, "*lead s s"]:
    """Q of the QR decomposition in which R's diagonal is positive, by block Gram-Schmidt, each
    block twice (Barlow and Smoktunowicz 2013).

    Args:
        matrix: invertible ones [*lead, s, s].
    """
    return _gram_schmidt(matrix, min(BLOCK, matrix.shape[-1]))


def _gram_schmidt(matrix: Float[Array, "*lead m n"], width: int) -> Float[Array, "*lead m n"]:
    """Columns, made orthonormal `width` at a time."""
    size = matrix.shape[-1]
    padded = _padded(matrix, -1, width)

    def add(number: Array, done: Float[Array, "*lead m n"]) -> Float[Array, "*lead m n"]:
        part = jax.lax.dynamic_slice_in_dim(padded, number * width, width, -1)
        for _ in range(2):
            part = part - done @ (transposed(done) @ part)
            part = _gram_schmidt(part, 1) if width > 1 else _normalised(part)
        return jax.lax.dynamic_update_slice_in_dim(done, part, number * width, -1)

    found: Array = jax.lax.fori_loop(0, padded.shape[-1] // width, add, jnp.zeros_like(padded))
    return found[..., :size]


def _normalised(column: Float[Array, "*lead m 1"]) -> Float[Array, "*lead m 1"]:
    """Columns of norm 1; zeros, which are padding, stay zeros."""
    norm = jnp.linalg.norm(column, axis=-2, keepdims=True)
    return column / jnp.where(norm > 0, norm, 1.0)


@jax.jit
def inverse_fourth_root(matrix: Float[Array, "*lead s s"]) -> Float[Array, "*lead s s"]:
    """Matrices to the power of -1/4, by the coupled Newton iteration of Guo and Higham (2006), as
    Shampoo takes it in Anil et al. (2020).

    Args:
        matrix: positive definite ones [*lead, s, s], eigenvalues within a factor of 1e7.
    """
    eye = identity(matrix)
    scale = 2.5 / jnp.linalg.norm(matrix, axis=(-2, -1), keepdims=True)

    def improve(_: Any, now: tuple[Array, Array]) -> tuple[Array, Array]:
        left, root = now  # root ** 4 * matrix, which becomes the identity, and root
        step = (5 * eye - left) / 4
        squared = step @ step
        return squared @ squared @ left, root @ step

    found: Array = jax.lax.fori_loop(0, NEWTON, improve, (scale * matrix, scale**0.25 * eye))[1]
    return found


@jax.jit
def inverse_transposed(upper: Float[Array, "*lead s s"]) -> Float[Array, "*lead s s"]:
    """U^-T, block after block of rows.

    Args:
        upper: invertible upper triangular U [*lead, s, s].
    """
    size, width = upper.shape[-1], min(BLOCK, upper.shape[-1])
    square = _padded(_padded(upper, -1, width), -2, width)
    eye = identity(square)
    beyond = jnp.broadcast_to(jnp.arange(square.shape[-1]) >= size, square.shape)
    square = jnp.where(beyond, eye, square)

    def solve(number: Array, done: Float[Array, "*lead s s"]) -> Float[Array, "*lead s s"]:
        at = number * width
        columns = jax.lax.dynamic_slice_in_dim(square, at, width, -1)
        corner = jax.lax.dynamic_slice_in_dim(columns, at, width, -2)
        left = jax.lax.dynamic_slice_in_dim(eye, at, width, -2) - transposed(columns) @ done
        part = transposed(_inverse(corner)) @ left
        return jax.lax.dynamic_update_slice_in_dim(done, part, at, -2)

    found: Array = jax.lax.fori_loop(0, square.shape[-1] // width, solve, jnp.zeros_like(square))
    return found[..., :size, :size]


def _inverse(upper: Float[Array, "*lead s s"]) -> Float[Array, "*lead s s"]:
    """The inverse of small upper triangular matrices, from that of ever larger blocks on their
    diagonals."""
    at = np.arange(upper.shape[-1])
    found = identity(upper) / jnp.where(identity(upper) > 0, upper, 1.0)
    width = 1
    while width < len(at):
        block, pair = at // width, at // (2 * width)
        beside = (pair[:, None] == pair) & (block[:, None] != block)
        found = found - found @ (upper * jnp.broadcast_to(beside, upper.shape)) @ found
        width *= 2
    return found


def _padded(x: Float[Array, " ..."], axis: int, width: int) -> Float[Array, " ..."]:
    """Zeros added, up to a multiple of `width`."""
    sizes = [(0, 0)] * x.ndim
    sizes[axis] = (0, -x.shape[axis] % width)
    return jnp.pad(x, sizes)
