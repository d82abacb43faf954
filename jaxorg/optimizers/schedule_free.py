"""Schedule-free AdamW: trains near a fast point, measured at its average (Defazio et al. 2024).

Gradients are taken at y = (1 - b1) z + b1 x, where z is the fast point and x the average; a model
is measured and stored with x.
"""

from __future__ import annotations

from typing import Any

import jax
import optax
from optax import contrib

from jaxorg.optimizers.base import Family, Hyper, Tree, decayed


def _build(h: Hyper) -> optax.GradientTransformation:
    # Adam without its first moment, whose part the average takes over.
    scaled = optax.scale_by_rms(h["b2"], h["eps"], eps_in_sqrt=False, bias_correction=True)
    return contrib.schedule_free(
        optax.chain(scaled, decayed(h)), h["learning_rate"], b1=h["b1"], weight_lr_power=2.0
    )


def average(trained: Tree, state: Any, h: Hyper) -> Tree:
    """The averaged weights x, from the y that are trained."""
    b1 = h["b1"]
    return jax.tree.map(lambda y, z: (y - (1 - b1) * z) / b1, trained, state.z)


FAMILY = Family(
    {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.01},
    _build,
    elementwise=True,
    narrow=False,  # it holds weights, whose changes are smaller than a bfloat16 step
    evaluated=average,
)
