"""A model as its structure and nested dicts of arrays, which is what programs take."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import jax
from flax import nnx
from jaxtyping import Key

from jaxorg.llama.model import Llama
from jaxorg.planning.signature import ModelSignature

Tree = Any  # nested dict of arrays


class Params(NamedTuple):
    """A model's parameters as nested dicts of arrays: those that are trained, and those that are
    not. With adapters these are the weights under them, else there are none."""

    trainable: Tree
    frozen: Tree


@cache  # a sweep asks for each phase, a plan for each point of a grid
def abstract_model(signature: ModelSignature) -> tuple[nnx.GraphDef[Llama], Params]:
    """The model's structure, and its parameters as shapes."""
    return split(signature, nnx.eval_shape(lambda: create(signature, jax.random.key(0))))


def create(signature: ModelSignature, key: Key[jax.Array, ""]) -> Llama:
    """A freshly initialised model with its adapters, if any.

    Args:
        signature: its shape, and how it is compiled.
        key: what all its weights are drawn from, fp32.
    """
    knobs = (signature.dtype, signature.unroll, signature.remat)
    with nnx.use_eager_sharding(False):  # axes' names are notes: a model is created without a mesh
        return Llama(signature.config, nnx.Rngs(key), signature.lora, *knobs)


def split(signature: ModelSignature, model: Llama) -> tuple[nnx.GraphDef[Llama], Params]:
    """A module as structure and parameters."""
    trained = nnx.LoRAParam if signature.lora else nnx.Param
    graph, trainable, *rest = nnx.split(model, trained, ...)
    (frozen,) = rest
    return graph, Params(nnx.to_pure_dict(trainable), nnx.to_pure_dict(frozen))
