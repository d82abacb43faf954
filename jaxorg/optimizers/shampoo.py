"""Shampoo: gradients whitened by roots of their statistics (Gupta et al. 2018; Anil et al. 2020).

Each side's statistics are a moving average, whose inverse root is taken every `refresh` steps: the
fourth root with two axes, the second with one. The direction is that of the whitened momentum, and
its length in each matrix is Adam's (grafting: Anil et al. 2020; in this order Shi et al. 2023,
arXiv:2309.06497). Vectors are left to Adam. `ridge`, a share of the
statistics' trace, is added to their eigenvalues; below 1e-7 roots are not exact.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jaxorg.optimizers.base import Family, Hyper, Tree, decayed
from jaxorg.optimizers.factoring import grouped, identity, inverse_fourth_root, trace
from jaxorg.optimizers.matrix_axes import LARGEST, MatrixAxes, apply, averaged, for_each


class Shampoo(NamedTuple):
    """What it keeps."""

    mu: Tree  # momentum
    nu: Tree  # second moment, for Adam's length
    grams: Tree  # statistics of each side
    roots: Tree  # their inverse roots


def build(h: Hyper, largest: int = LARGEST) -> optax.GradientTransformation:
    """Shampoo with statistics of each side that is no longer than `largest`."""
    b1, b2 = h["b1"], h["b2"]

    def init(params: Tree) -> Shampoo:
        zeros, roots = optax.tree.zeros_like(params), for_each(params, lambda eye: eye, largest)
        return Shampoo(zeros, zeros, optax.tree.zeros_like(roots), roots)

    def inverse_roots(grads: Tree, grams: Tree) -> Tree:
        fourth = grouped(lambda gram: _root(gram, h["ridge"]), grams)

        def of_both(_: Array, axes: MatrixAxes) -> MatrixAxes:
            return {s: root @ root if len(axes) == 1 else root for s, root in axes.items()}

        return jax.tree.map(of_both, grads, fourth)

    def update(
        grads: Tree, state: Shampoo, params: Tree | None = None, **_: Any
    ) -> tuple[Tree, Shampoo]:
        del params
        count = (h["step"] + 1).astype(jnp.float32)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, grads)
        grams = averaged(state.grams, grads, b2)
        roots = jax.lax.cond(h["due"], lambda: inverse_roots(grads, grams), lambda: state.roots)

        def step(
            m: Float[Array, "*shape"], v: Float[Array, "*shape"], axes: MatrixAxes
        ) -> Float[Array, "*shape"]:
            mean = m / (1 - b1**count)
            adam = mean / (jnp.sqrt(v / (1 - b2**count)) + h["eps"])
            return _grafted(apply(mean, axes), adam) if axes else adam

        return jax.tree.map(step, mu, nu, roots), Shampoo(mu, nu, grams, roots)

    return optax.chain(optax.GradientTransformationExtraArgs(init, update), decayed(h))


def _root(statistics: Float[Array, "*lead s s"], ridge: Any) -> Float[Array, "*lead s s"]:
    """Statistics to the power of -1/4; of zeros the identity."""
    size = trace(statistics)
    added = jnp.where(size > 0, ridge * size, 1.0)
    root: Array = inverse_fourth_root(statistics + added * identity(statistics))
    return root


def _grafted(
    direction: Float[Array, "*lead m n"], length: Float[Array, "*lead m n"]
) -> Float[Array, "*lead m n"]:
    """Each matrix of `direction` with the norm of that of `length`."""
    wanted, own = (jnp.linalg.norm(x, axis=(-2, -1), keepdims=True) for x in (length, direction))
    return direction * jnp.where(own > 0, wanted / jnp.where(own > 0, own, 1.0), 0.0)


FAMILY = Family(
    {"b1": 0.9, "b2": 0.99, "eps": 1e-8, "ridge": 1e-4, "weight_decay": 0.01}, build, refresh=10
)
