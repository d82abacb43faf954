"""AdEMAMix: Adam with a second, slow momentum (Pagliardini et al. 2024)."""

from __future__ import annotations

import optax
from optax import contrib

from jaxorg.optimizers.base import Family, Hyper, matrices


def _build(h: Hyper) -> optax.GradientTransformation:
    own = {name: h[name] for name in ("b1", "b2", "b3", "alpha", "eps", "weight_decay")}
    return contrib.ademamix(h["learning_rate"], **own, mask=matrices)


FAMILY = Family(
    {"b1": 0.9, "b2": 0.999, "b3": 0.9999, "alpha": 5.0, "eps": 1e-8, "weight_decay": 0.01},
    _build,
    elementwise=True,
)
