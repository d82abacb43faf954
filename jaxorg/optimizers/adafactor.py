"""Adafactor: a second moment of rows and columns only (Shazeer and Stern 2018)."""

from __future__ import annotations

import optax

from jaxorg.optimizers.base import Family, Hyper, per_layer


def _build(h: Hyper) -> optax.GradientTransformation:
    return per_layer(
        optax.adafactor(
            h["learning_rate"], decay_rate=h["decay_rate"], clipping_threshold=h["clipping"]
        )
    )


FAMILY = Family({"decay_rate": 0.8, "clipping": 1.0}, _build)
