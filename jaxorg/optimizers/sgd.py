"""SGD, with momentum (Polyak 1964) or, at `momentum: 0.0`, without."""

from __future__ import annotations

import optax

from jaxorg.optimizers.base import Family, Hyper


def _build(h: Hyper) -> optax.GradientTransformation:
    return optax.sgd(h["learning_rate"], momentum=h["momentum"])


FAMILY = Family({"momentum": 0.9}, _build, elementwise=True)
