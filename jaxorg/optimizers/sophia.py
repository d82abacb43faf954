"""Sophia-G: momentum over a diagonal curvature, clipped number by number (Liu et al. 2023).

The curvature is the Gauss-Newton-Bartlett estimate: every `refresh` steps, the square of a gradient
whose labels are drawn from the model, times their number. The update is Algorithm 3 of the paper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key

from jaxorg.optimizers.base import Family, Hyper, Tree, decayed


class Sophia(NamedTuple):
    """What it keeps."""

    mu: Tree  # momentum
    curvature: Tree  # of the loss, its diagonal


def _build(h: Hyper) -> optax.GradientTransformation:
    def init(params: Tree) -> Sophia:
        return Sophia(optax.tree.zeros_like(params), optax.tree.zeros_like(params))

    def update(
        grads: Tree,
        state: Sophia,
        params: Tree | None = None,
        *,
        sampled: Callable[[Key[Array, ""]], tuple[Tree, Array]],
        **_: Any,
    ) -> tuple[Tree, Sophia]:
        del params

        def renewed(old: Tree) -> Tree:
            found, count = sampled(h["key"])
            share = (1 - h["b2"]) * count
            return jax.tree.map(lambda c, g: h["b2"] * c + share * g * g, old, found)

        curvature = jax.lax.cond(h["due"], renewed, lambda old: old, state.curvature)
        mu = jax.tree.map(lambda m, g: h["b1"] * m + (1 - h["b1"]) * g, state.mu, grads)
        steps = jax.tree.map(
            lambda m, c: jnp.clip(m / jnp.maximum(h["gamma"] * c, h["eps"]), -1.0, 1.0),
            mu,
            curvature,
        )
        return steps, Sophia(mu, curvature)

    return optax.chain(optax.GradientTransformationExtraArgs(init, update), decayed(h))


FAMILY = Family(
    {"b1": 0.96, "b2": 0.99, "gamma": 0.05, "eps": 1e-12, "weight_decay": 0.01},
    _build,
    elementwise=True,
    refresh=10,
    draws=True,
)
