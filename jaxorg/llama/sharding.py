"""How one model's arrays are split over devices: one mapping from logical axes to mesh axes.

`fsdp` splits what is stored, and the rows of a batch; a layer's weights are gathered where they are
used. `tensor` splits the work itself: heads, feed-forward width, vocabulary. Without a mesh, and on
one whose axes have size 1, nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

RULES: Mapping[str, str | None] = {
    "layer": None,
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "mlp": "tensor",
}


def logical_axes(state: Any) -> Any:
    """The logical axes of a module's variables, in their tree, as `PartitionSpec`s."""
    return nnx.get_partition_spec(state)


def gathered(tree: Any, axes: Any) -> Any:
    """Parameters as they are used, whole along `fsdp`; `axes` as `logical_axes` gives them, of
    which the last ones count where `tree` has fewer dimensions."""
    if not _split():
        return tree

    def gather(x: Float[Array, "*shape"], names: PartitionSpec) -> Float[Array, "*shape"]:
        rules = (RULES[name] if name else None for name in names[len(names) - x.ndim :])
        spec = PartitionSpec(*(None if rule == "fsdp" else rule for rule in rules))
        whole: Array = jax.lax.with_sharding_constraint(x, spec)
        return whole

    return jax.tree.map(gather, tree, axes)


def by_rows(x: Float[Array, " B *rest"]) -> Float[Array, " B *rest"]:
    """Activations split by rows over `fsdp`, where that divides them.

    Args:
        x: activations, rows of a batch first.
    """
    if not _split() or x.shape[0] % jax.sharding.get_abstract_mesh().shape["fsdp"]:
        return x
    split: Array = jax.lax.with_sharding_constraint(x, PartitionSpec("fsdp"))
    return split


def _split() -> bool:
    shape = jax.sharding.get_abstract_mesh().shape
    return bool(shape.get("fsdp", 1) * shape.get("tensor", 1) > 1)
