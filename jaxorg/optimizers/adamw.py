"""Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

from __future__ import annotations

import optax

from jaxorg.optimizers.base import Family, Hyper, matrices


def _build(h: Hyper) -> optax.GradientTransformation:
    betas = {"b1": h["b1"], "b2": h["b2"], "eps": h["eps"]}
    return optax.adamw(h["learning_rate"], **betas, weight_decay=h["weight_decay"], mask=matrices)


FAMILY = Family(
    {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.01}, _build, elementwise=True
)
