"""Adam (Kingma and Ba 2015)."""

from __future__ import annotations

import optax

from jaxorg.optimizers.base import Family, Hyper


def _build(h: Hyper) -> optax.GradientTransformation:
    return optax.adam(h["learning_rate"], b1=h["b1"], b2=h["b2"], eps=h["eps"])


FAMILY = Family({"b1": 0.9, "b2": 0.999, "eps": 1e-8}, _build, elementwise=True)
