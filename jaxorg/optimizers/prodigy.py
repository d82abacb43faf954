"""Prodigy: Adam that finds its own step size (Mishchenko and Defazio 2023).

The learning rate multiplies what it finds: 1 is its natural value.
"""

from __future__ import annotations

from typing import Any

import jax
import optax
from optax import contrib

from jaxorg.optimizers.base import Family, Hyper, Tree, matrices


def _build(h: Hyper) -> optax.GradientTransformation:
    inner = contrib.prodigy(
        h["learning_rate"],
        betas=(h["b1"], h["b2"]),
        eps=h["eps"],
        estim_lr0=h["start"],
        estim_lr_coef=h["growth"],
    )

    def update(grads: Tree, state: Any, params: Tree) -> tuple[Tree, Any]:
        updates, new = inner.update(grads, state, params)
        # optax's own decay would take norms, too.
        decay = h["learning_rate"] * h["weight_decay"] * state.estim_lr
        change = lambda u, p, decays: u - decay * p if decays else u  # noqa: E731
        return jax.tree.map(change, updates, params, matrices(params)), new

    return optax.GradientTransformation(inner.init, update)


FAMILY = Family(
    {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "start": 1e-6, "growth": 1.0, "weight_decay": 0.01},
    _build,
    narrow=False,  # what it learns from is small differences to the first weights
)
