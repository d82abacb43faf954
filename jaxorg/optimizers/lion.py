"""Lion: the sign of a momentum (Chen et al. 2023)."""

from __future__ import annotations

import optax

from jaxorg.optimizers.base import Family, Hyper, matrices


def _build(h: Hyper) -> optax.GradientTransformation:
    decay = {"weight_decay": h["weight_decay"], "mask": matrices}
    return optax.lion(h["learning_rate"], b1=h["b1"], b2=h["b2"], **decay)


FAMILY = Family({"b1": 0.9, "b2": 0.99, "weight_decay": 0.01}, _build, elementwise=True)
