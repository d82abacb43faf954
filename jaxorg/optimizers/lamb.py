"""LAMB: each matrix moves in proportion to its own norm (You et al. 2020)."""

from __future__ import annotations

import optax

from jaxorg.optimizers.base import Family, Hyper, matrices, per_layer


def _build(h: Hyper) -> optax.GradientTransformation:
    own = {name: h[name] for name in ("b1", "b2", "eps", "weight_decay")}
    return per_layer(optax.lamb(h["learning_rate"], **own, mask=matrices))


FAMILY = Family({"b1": 0.9, "b2": 0.999, "eps": 1e-6, "weight_decay": 0.01}, _build)
