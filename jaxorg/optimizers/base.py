"""What an optimizer family is, and what families share.

Blocks of a model are stacked on a leading layer axis; families that look at whole leaves (factored
moments, trust ratios, orthogonalised momentum) are told so here, never left to guess from the rank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import optax

Tree = Any  # nested dict of arrays
Hyper = Mapping[str, Any]  # name -> float or traced scalar
LAYERED = "blocks"  # the part of a parameter tree whose leaves carry a leading layer axis


@dataclass(frozen=True)
class Family:
    """An optimizer family: what may be swept, with defaults, and how it is built.

    `build` takes a mapping with `learning_rate`, which is multiplied by its schedule, and the
    family's own hyperparameters: Python floats or traced scalars. At a step it also holds

    - `step`, the number of the step in its phase: an int32 [] that all runs share;
    - `due`, if the family has `refresh`: a bool [] that all runs share, whether to renew now what
      is dear to compute. A `lax.cond` on it stays one under `vmap`;
    - `key`, if the family `draws`: a random key of the run and step.

    The transformation's `update` is also given `sampled`, a function of a key: the loss's
    gradient on the batch with labels that the model draws itself, and how many they are.

    An `elementwise` family does to each number what it would do to it alone, and leaves one at zero
    whose gradients are zero: adapters may be padded with zeros. All others see whole shapes.
    """

    defaults: Mapping[str, float]
    build: Callable[[Hyper], optax.GradientTransformation]
    elementwise: bool = False
    refresh: int = 0  # steps from one renewal to the next, unless a sweep says; 0: renews nothing
    draws: bool = False  # whether its steps draw random numbers
    narrow: bool = True  # whether what it keeps for each weight may be bfloat16 between steps
    # What a model is measured with, stored and gone on from, if not the weights that gradients are
    # taken at: a function of these, the transformation's state and the hyperparameters.
    evaluated: Callable[[Tree, Any, Hyper], Tree] | None = None
    version: int = 1  # raise it when the same steps would come to other weights


def matrices(params: Tree) -> Tree:
    """True where weight decay belongs: matrices, not norms and biases."""
    return by_rank(params, lambda rank: rank >= 2)


def by_rank(params: Tree, of_rank: Callable[[int], Any]) -> Tree:
    """Map each leaf's rank, its layer axis not counted, to a value."""

    def visit(path: tuple[Any, ...], leaf: Any) -> Any:
        return of_rank(leaf.ndim - (path[0].key == LAYERED))

    return jax.tree_util.tree_map_with_path(visit, params)


def decayed(h: Hyper) -> optax.GradientTransformation:
    """The last of a chain: decoupled weight decay on matrices, and the learning rate."""
    return optax.chain(
        optax.add_decayed_weights(h["weight_decay"], matrices),
        optax.scale_by_learning_rate(h["learning_rate"]),
    )


def per_layer(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Apply `inner` to each layer's weights as if they were leaves of their own."""

    def parts(tree: Tree) -> tuple[Tree, Tree]:
        return tree.get(LAYERED, {}), {k: v for k, v in tree.items() if k != LAYERED}

    def init(params: Tree) -> Any:
        layered, rest = parts(params)
        return jax.vmap(inner.init)(layered) if layered else (), inner.init(rest)

    def update(grads: Tree, state: Any, params: Any = None) -> Any:
        (layered, rest), (layered_params, rest_params) = parts(grads), parts(params)
        updates, state_rest = inner.update(rest, state[1], rest_params)
        if not layered:
            return updates, ((), state_rest)
        layered, state_layered = jax.vmap(inner.update)(layered, state[0], layered_params)
        return {**updates, LAYERED: layered}, (state_layered, state_rest)

    return optax.GradientTransformation(init, update)
