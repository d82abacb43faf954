"""PSGD: a preconditioner learnt on the group of triangular matrices (Li 2018), Kronecker-factored.

PSGD-Kron (Pooladzandi and Li 2024, arXiv:2402.04553). Momentum M is multiplied by P = Q^T Q; Q has
an upper triangular factor for each side of a matrix, and a diagonal one for longer sides and for
vectors. Every `refresh` steps, against a random probe, the factors take a step of relative size
`rate` towards a P that whitens M. They begin as large as whitens the first gradients' mean square.
That step is scaled by an upper bound of its spectral norm, where Li takes a lower one, which jumps.
As in kron (Walters 2024) no update has a root mean square above 1.1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from jaxorg.optimizers.base import Family, Hyper, Tree, by_rank, decayed
from jaxorg.optimizers.factoring import grouped, inverse_transposed, trace, transposed
from jaxorg.optimizers.matrix_axes import AXES, LARGEST, MatrixAxes, gram

LIMIT = 1.1  # root mean square of an update


class Psgd(NamedTuple):
    """What it keeps."""

    mu: Tree  # momentum
    factors: Tree  # Q's for each side: [..., s, s], or their diagonals [..., s]


def build(h: Hyper, largest: int = LARGEST) -> optax.GradientTransformation:
    """PSGD with triangular factors for sides that are no longer than `largest`."""

    def init(params: Tree) -> Psgd:
        factors = jax.tree.map(lambda r, p: _identity(r, p, largest), by_rank(params, int), params)
        return Psgd(optax.tree.zeros_like(params), factors)

    def renewed(factors: Tree, means: Tree) -> Tree:
        ranks, structure = by_rank(means, int), jax.tree.structure(means)
        keys = [jax.random.fold_in(h["key"], i) for i in range(len(jax.tree.leaves(means)))]
        probes = jax.tree.map(
            lambda m, key: jax.random.normal(key, m.shape, m.dtype),
            means,
            jax.tree.unflatten(structure, keys),
        )
        damped = jax.tree.map(lambda m, v: m + h["eps"] * v, means, probes)
        damped, probes = (jax.tree.map(_matrix, ranks, tree) for tree in (damped, probes))
        factors = jax.tree.map(lambda x, q: _begun(q, x, h["step"] == 0), damped, factors)
        full = jax.tree.map(
            lambda x, q: {s: f for s, f in q.items() if not _diagonal(f, x)}, damped, factors
        )
        inverses = grouped(inverse_transposed, full)
        return jax.tree.map(
            lambda x, v, q, i: _renewed(q, i, x, v, h["rate"]), damped, probes, factors, inverses
        )

    def update(grads: Tree, state: Psgd, params: Tree | None = None, **_: Any) -> tuple[Tree, Psgd]:
        del params
        mu = jax.tree.map(lambda m, g: h["b1"] * m + (1 - h["b1"]) * g, state.mu, grads)
        correction = 1 - h["b1"] ** (h["step"] + 1).astype(jnp.float32)
        means = jax.tree.map(lambda m: m / correction, mu)
        factors = jax.lax.cond(h["due"], renewed, lambda old, _: old, state.factors, means)

        def step(rank: int, m: Float[Array, "*shape"], q: MatrixAxes) -> Float[Array, "*shape"]:
            x = _applied(_matrix(rank, m), q)
            x = _applied(x, {side: _turned(side, f, x) for side, f in q.items()})
            size = jnp.sqrt(jnp.mean(x * x, axis=(-2, -1), keepdims=True))
            return (x * jnp.minimum(1.0, LIMIT / size)).reshape(m.shape)

        return jax.tree.map(step, by_rank(means, int), means, factors), Psgd(mu, factors)

    return optax.chain(optax.GradientTransformationExtraArgs(init, update), decayed(h))


def _identity(rank: int, leaf: Float[Array, " ..."], largest: int) -> MatrixAxes:
    """A weight's first factors."""
    shape = _matrix(rank, leaf).shape
    ones = {side: jnp.ones((*shape[:-2], shape[axis])) for side, axis in AXES.items()}
    if rank < 2:
        return {"rows": ones["rows"]}
    full = {side for side, axis in AXES.items() if shape[axis] <= largest}
    return {s: _full(one) if s in full else one for s, one in ones.items()}


def _full(diagonal: Float[Array, "*lead s"]) -> Float[Array, "*lead s s"]:
    """Ones as diagonals."""
    size = diagonal.shape[-1]
    return jnp.broadcast_to(jnp.eye(size), (*diagonal.shape, size))


def _matrix(rank: int, x: Float[Array, " ..."]) -> Float[Array, "*lead m n"]:
    """Weights [*lead, m, n] as they are, a vector [*lead, m] as [*lead, m, 1]."""
    return x if rank >= 2 else x[..., None]


def _diagonal(factor: Float[Array, " ..."], x: Float[Array, "*lead m n"]) -> bool:
    """Whether a factor of weights like x is diagonal."""
    return factor.ndim < x.ndim


def _turned(
    side: str, factor: Float[Array, "*factor"], x: Float[Array, "*lead m n"]
) -> Float[Array, "*factor"]:
    """A factor's transpose."""
    return factor if _diagonal(factor, x) else transposed(factor)


def _across(factor: Float[Array, "*lead s"], side: str) -> Float[Array, "*lead m n"]:
    """A diagonal as it multiplies weights [*lead, m, n]: m or n is 1."""
    return factor[..., :, None] if side == "rows" else factor[..., None, :]


def _applied(x: Float[Array, "*lead m n"], factors: MatrixAxes) -> Float[Array, "*lead m n"]:
    """What factors F make of x: F x for rows, x F^T for columns."""
    for side, factor in factors.items():
        if _diagonal(factor, x):
            x = x * _across(factor, side)
        else:
            x = factor @ x if side == "rows" else x @ transposed(factor)
    return x


def _begun(factors: MatrixAxes, x: Float[Array, "*lead m n"], first: Bool[Array, ""]) -> MatrixAxes:
    """Factors that, at the first step, give x the mean square that P = Q^T Q whitens."""
    square = jnp.mean(x * x, axis=(-2, -1))
    scale = jnp.where(first, square ** (-1 / (4 * len(factors))), 1.0)
    return {
        side: factor * scale.reshape(*scale.shape, *[1] * (factor.ndim - scale.ndim))
        for side, factor in factors.items()
    }


def _renewed(
    factors: MatrixAxes,
    inverses: MatrixAxes,
    x: Float[Array, "*lead m n"],
    probe: Float[Array, "*lead m n"],
    rate: Any,
) -> MatrixAxes:
    """Factors that whiten x better, by one step on their group; `inverses` are F^-T of full F."""
    inverse = _applied(probe, {s: inverses.get(s, 1 / f) for s, f in factors.items()})
    whitened = _applied(x, factors)
    found = {}
    for side, factor in factors.items():
        if _diagonal(factor, x):
            across = -1 if side == "rows" else -2
            ours, theirs = (jnp.sum(y * y, axis=across) for y in (whitened, inverse))
            bound = jnp.max(ours + theirs, axis=-1, keepdims=True)
            found[side] = factor - rate * (ours - theirs) / bound * factor
        else:
            ours, theirs = gram(whitened, side), gram(inverse, side)
            change = jnp.triu(ours - theirs) @ factor
            found[side] = factor - rate / _bound(ours + theirs) * change
    return found


def _bound(matrix: Float[Array, "*lead s s"]) -> Float[Array, "*lead 1 1"]:
    """At least the spectral norm of positive matrices, and at most s ** 0.25 times it: the fourth
    root of the sum of its eigenvalues' fourth powers."""
    size = trace(matrix)
    scaled = matrix / size
    return size * jnp.sqrt(jnp.linalg.norm(scaled @ scaled, axis=(-2, -1), keepdims=True))


FAMILY = Family(
    {"b1": 0.9, "rate": 0.1, "eps": 1e-8, "weight_decay": 0.01}, build, refresh=10, draws=True
)
