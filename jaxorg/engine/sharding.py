"""Where the arrays of stacked runs lie on a mesh.

A run's weights are split by their logical axes (`llama/sharding.py`), runs by the axis `run`. What
an optimizer keeps for a parameter lies as the parameter does.
"""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxorg.engine.params import Params, Tree, create
from jaxorg.engine.step import State
from jaxorg.llama.sharding import RULES, logical_axes
from jaxorg.optimizers.state import mirrored
from jaxorg.planning.signature import ModelSignature

RUN = PartitionSpec("run")


def model_specs(signature: ModelSignature, mesh: Mesh) -> Params:
    """How one run's parameters are split, without the run axis."""
    model = nnx.eval_shape(lambda: create(signature, jax.random.key(0)))
    trained = nnx.LoRAParam if signature.lora else nnx.Param
    _, *parts = nnx.split(model, trained, ...)
    specs = (
        jax.tree.map(
            lambda leaf, axes: _split(leaf.shape, axes, mesh),
            nnx.to_pure_dict(part),
            nnx.to_pure_dict(logical_axes(part)),
        )
        for part in parts
    )
    return Params(*specs)


def state_specs(state: State, trainable: Tree, specs: Tree) -> State:
    """How one run's training state is split: `state` and `trainable` are abstract, `specs` those
    of `trainable`. What the optimizer keeps for a parameter lies as it does; anything else is on
    every device."""
    everywhere: Any = PartitionSpec()
    optimizer = mirrored(state.optimizer, trainable, _leaves(specs), everywhere)
    return State(specs, optimizer, everywhere)


def batch_spec(mesh: Mesh, rows: int) -> PartitionSpec:
    """How one run's rows are split: over `fsdp`, where that divides them."""
    return PartitionSpec("fsdp" if rows % mesh.shape["fsdp"] == 0 else None)


def stacked(mesh: Mesh, specs: Tree) -> Tree:
    """Shardings of stacked runs, whose leading axis is `run`."""
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, PartitionSpec("run", *spec)), specs, is_leaf=_is_spec
    )


def shared(mesh: Mesh, specs: Tree) -> Tree:
    """Shardings of arrays that every run sees."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=_is_spec)


def _split(shape: tuple[int, ...], axes: PartitionSpec, mesh: Mesh) -> PartitionSpec:
    """Mesh axes for logical ones; a dimension that its mesh axis does not divide stays whole."""
    chosen = [RULES[axis] if axis else None for axis in axes]
    fits = (
        axis if axis and size % mesh.shape[axis] == 0 else None
        for size, axis in zip(shape, chosen, strict=True)
    )
    return PartitionSpec(*fits)


def _leaves(specs: Tree) -> list[PartitionSpec]:
    return jax.tree.leaves(specs, is_leaf=_is_spec)


def _is_spec(value: Any) -> bool:
    return isinstance(value, PartitionSpec)
