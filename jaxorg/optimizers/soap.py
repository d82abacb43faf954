"""SOAP: Adam in the eigenbasis of Shampoo's statistics (Vyas et al. 2024).

Algorithm 3 of the paper: momentum stays in the weights' own basis, the second moment in the turned
one, and every `refresh` steps an orthogonal iteration (power step and QR) renews the bases. As in
the authors' code, weights do not move in the first step, which gives the first bases. These come
from several iterations of damped statistics, not from `eigh`: where gradients have less than full
rank, eigenvectors are arbitrary, and a run beside others would not be what it is alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxorg.optimizers.base import Family, Hyper, Tree, decayed
from jaxorg.optimizers.factoring import grouped, orthonormal, trace, transposed
from jaxorg.optimizers.matrix_axes import LARGEST, apply, averaged, for_each

BEGINNING = 8  # iterations at the first step
DAMPING = 1e-2  # of the statistics' trace


class Soap(NamedTuple):
    """What it keeps."""

    mu: Tree  # momentum
    nu: Tree  # second moment, in the bases
    grams: Tree  # statistics of each side
    bases: Tree  # their eigenvectors, about: columns


def build(h: Hyper, largest: int = LARGEST) -> optax.GradientTransformation:
    """SOAP with a basis for each side that is no longer than `largest`."""
    b1, b2 = h["b1"], h["b2"]

    def init(params: Tree) -> Soap:
        zeros, bases = optax.tree.zeros_like(params), for_each(params, lambda eye: eye, largest)
        return Soap(zeros, zeros, optax.tree.zeros_like(bases), bases)

    def moved(grads: Tree, state: Soap) -> tuple[Tree, Tree, Tree]:
        """Adam's step in the bases, and its moments."""
        into = jax.tree.map(transposed, state.bases)
        count = h["step"].astype(jnp.float32)  # of moves, this one included
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(
            lambda g, v, q: b2 * v + (1 - b2) * apply(g, q) ** 2, grads, state.nu, into
        )
        rooted = jax.tree.map(lambda v: jnp.sqrt(v / (1 - b2**count)) + h["eps"], nu)
        steps = jax.tree.map(
            lambda m, r, q, back: apply(apply(m, q) / (1 - b1**count) / r, back),
            mu,
            rooted,
            into,
            state.bases,
        )
        return steps, mu, nu

    def update(grads: Tree, state: Soap, params: Tree | None = None, **_: Any) -> tuple[Tree, Soap]:
        del params
        first = h["step"] == 0
        still = (optax.tree.zeros_like(grads), state.mu, state.nu)
        steps, mu, nu = jax.tree.map(
            lambda old, new: jnp.where(first, old, new), still, moved(grads, state)
        )
        grams = averaged(state.grams, grads, b2)

        def renewed(bases: Tree) -> Tree:
            turn = lambda _, old: grouped(_turned, grams, old)  # noqa: E731
            return jax.lax.fori_loop(0, jnp.where(first, BEGINNING, 1), turn, bases)

        bases = jax.lax.cond(h["due"], renewed, lambda old: old, state.bases)
        return steps, Soap(mu, nu, grams, bases)

    return optax.chain(optax.GradientTransformationExtraArgs(init, update), decayed(h))


def _turned(
    statistics: Float[Array, "*lead s s"], basis: Float[Array, "*lead s s"]
) -> Float[Array, "*lead s s"]:
    """A basis nearer to the eigenvectors of statistics."""
    size = trace(statistics)
    turned: Array = orthonormal(
        statistics @ basis + jnp.where(size > 0, DAMPING * size, 1.0) * basis
    )
    return turned


FAMILY = Family({"b1": 0.95, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.01}, build, refresh=10)
