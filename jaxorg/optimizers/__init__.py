"""One registry of optimizer families; every hyperparameter is swept, so none is compiled in.

A family is a factory from a dict of scalars (Python floats or traced arrays) to an optax
transformation. The learning rate arrives already multiplied by its schedule. Blocks of a model
are stacked on a leading layer axis; families that look at whole leaves (factored moments, trust
ratios, orthogonalised momentum) are told so here, never left to guess from the rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import optax
from optax import contrib

Hyper = Mapping[str, Any]  # name -> float or traced scalar
LAYERED = "blocks"  # the part of a parameter tree whose leaves carry a leading layer axis


@dataclass(frozen=True)
class Family:
    """An optimizer family: what may be swept, with defaults, and how it is built.

    An `elementwise` one does to each number what it would do to it alone, and leaves one at zero
    whose gradients are zero: adapters may be padded with zeros. All others see whole shapes.
    """

    defaults: Mapping[str, float]
    build: Callable[[Hyper], optax.GradientTransformation]
    elementwise: bool = False


def build(name: str, hyper: Hyper) -> optax.GradientTransformation:
    """The transformation of family `name` under `hyper`, which holds `learning_rate` and the
    family's own hyperparameters."""
    return FAMILIES[name].build(hyper)


def _matrices(params: Any) -> Any:
    """True where weight decay belongs: matrices, not norms and biases."""
    return _by_rank(params, lambda rank: rank >= 2)


def _by_rank(params: Any, of_rank: Callable[[int], Any]) -> Any:
    """Map each leaf's rank, its layer axis not counted, to a value."""

    def visit(path: tuple[Any, ...], leaf: Any) -> Any:
        return of_rank(leaf.ndim - (path[0].key == LAYERED))

    return jax.tree_util.tree_map_with_path(visit, params)


def _per_layer(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Apply `inner` to each layer's weights as if they were leaves of their own."""

    def parts(tree: Any) -> tuple[Any, Any]:
        return tree.get(LAYERED, {}), {k: v for k, v in tree.items() if k != LAYERED}

    def init(params: Any) -> Any:
        layered, rest = parts(params)
        return jax.vmap(inner.init)(layered) if layered else (), inner.init(rest)

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        (layered, rest), (layered_params, rest_params) = parts(grads), parts(params)
        updates, state_rest = inner.update(rest, state[1], rest_params)
        if not layered:
            return updates, ((), state_rest)
        layered, state_layered = jax.vmap(inner.update)(layered, state[0], layered_params)
        return {**updates, LAYERED: layered}, (state_layered, state_rest)

    return optax.GradientTransformation(init, update)


def _sgd(h: Hyper) -> optax.GradientTransformation:
    return optax.sgd(h["learning_rate"], momentum=h["momentum"])


def _adam(h: Hyper) -> optax.GradientTransformation:
    return optax.adam(h["learning_rate"], b1=h["b1"], b2=h["b2"], eps=h["eps"])


def _adamw(h: Hyper) -> optax.GradientTransformation:
    betas = {"b1": h["b1"], "b2": h["b2"], "eps": h["eps"]}
    return optax.adamw(h["learning_rate"], **betas, weight_decay=h["weight_decay"], mask=_matrices)


def _lion(h: Hyper) -> optax.GradientTransformation:
    decay = {"weight_decay": h["weight_decay"], "mask": _matrices}
    return optax.lion(h["learning_rate"], b1=h["b1"], b2=h["b2"], **decay)


def _adafactor(h: Hyper) -> optax.GradientTransformation:
    return _per_layer(
        optax.adafactor(
            h["learning_rate"], decay_rate=h["decay_rate"], clipping_threshold=h["clipping"]
        )
    )


def _muon(h: Hyper) -> optax.GradientTransformation:
    def orthogonalised(params: Any) -> Any:
        """Block matrices, layer by layer; embeddings, norms and biases go to Adam."""

        def dimensions(path: tuple[Any, ...], leaf: Any) -> Any:
            layered = path[0].key == LAYERED and leaf.ndim == 3
            return contrib.MuonDimensionNumbers(1, 2) if layered else None

        return jax.tree_util.tree_map_with_path(dimensions, params)

    return contrib.muon(
        h["learning_rate"],
        beta=h["beta"],
        weight_decay=h["weight_decay"],
        weight_decay_mask=_matrices,
        adam_b1=h["adam_b1"],
        adam_b2=h["adam_b2"],
        adam_learning_rate=h["learning_rate"] * h["adam_ratio"],
        muon_weight_dimension_numbers=orthogonalised,
    )


_MOMENTS = {"b1": 0.9, "b2": 0.999, "eps": 1e-8}

FAMILIES: Mapping[str, Family] = {
    "sgd": Family({"momentum": 0.9}, _sgd, elementwise=True),
    "adam": Family(_MOMENTS, _adam, elementwise=True),
    "adamw": Family({**_MOMENTS, "weight_decay": 0.01}, _adamw, elementwise=True),
    "lion": Family({"b1": 0.9, "b2": 0.99, "weight_decay": 0.01}, _lion, elementwise=True),
    "adafactor": Family({"decay_rate": 0.8, "clipping": 1.0}, _adafactor),
    "muon": Family(
        {"beta": 0.95, "weight_decay": 0.0, "adam_b1": 0.9, "adam_b2": 0.999, "adam_ratio": 0.1},
        _muon,
    ),
}
