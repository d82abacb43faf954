"""Muon: orthogonalised momentum for blocks' matrices, Adam for the rest (Jordan et al. 2024)."""

from __future__ import annotations

from typing import Any

import jax
import optax
from optax import contrib

from jaxorg.optimizers.base import LAYERED, Family, Hyper, Tree, matrices


def _build(h: Hyper) -> optax.GradientTransformation:
    def orthogonalised(params: Tree) -> Tree:
        """Block matrices, layer by layer; embeddings, norms and biases go to Adam."""

        def dimensions(path: tuple[Any, ...], leaf: Any) -> Any:
            layered = path[0].key == LAYERED and leaf.ndim == 3
            return contrib.MuonDimensionNumbers(1, 2) if layered else None

        return jax.tree_util.tree_map_with_path(dimensions, params)

    return contrib.muon(
        h["learning_rate"],
        beta=h["beta"],
        weight_decay=h["weight_decay"],
        weight_decay_mask=matrices,
        adam_b1=h["adam_b1"],
        adam_b2=h["adam_b2"],
        adam_learning_rate=h["learning_rate"] * h["adam_ratio"],
        muon_weight_dimension_numbers=orthogonalised,
    )


FAMILY = Family(
    {"beta": 0.95, "weight_decay": 0.0, "adam_b1": 0.9, "adam_b2": 0.999, "adam_ratio": 0.1}, _build
)
