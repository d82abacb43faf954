"""Latent adversarial training, untargeted (Casper et al. 2024, "Defending Against Unforeseen
Failure Modes with Latent Adversarial Training"): training under the worst disturbance of the
residual stream, which stands for inputs that nobody thought of.

The disturbance lies after one block, is as large as `epsilon` times the stream's own norm at each
token, and is found by projected gradient ascent (Madry et al. 2018) from none at all: so nothing
about it is random.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Num

STRIDE = 2.5  # of all ascent steps together, in radii: Madry et al. 2018
TINY = 1e-15  # less counts as no slope: smaller squares are lost in fp32


def worst(
    loss: Callable[[Float32[Array, "L B T D"]], Float32[Array, ""]],
    shape: tuple[int, int, int, int],
    layer: Num[Array, ""],
    epsilon: Float[Array, ""],
    steps: int,
) -> Float32[Array, "L B T D"]:
    """A disturbance that raises a loss, for `Llama.__call__`.

    Args:
        loss: of a disturbance.
        shape: L, B, T and D.
        layer: the block after which it lies, counted from 0.
        epsilon: its largest norm at a token, as a share of the stream's.
        steps: of ascent.

    Returns:
        Zeros after all other blocks.
    """
    layers, *inner = shape
    there = (jnp.arange(layers) == layer).astype(jnp.float32)[:, None, None, None]
    radius = epsilon * jnp.sqrt(float(shape[-1]))  # in units of the stream's root mean square
    slope = jax.grad(lambda change: loss(there * change[None]))

    def climb(_: Any, change: Float32[Array, "B T D"]) -> Float32[Array, "B T D"]:
        up = slope(change)
        moved: Array = change + STRIDE / steps * radius * up / _norms(up)
        return moved * jnp.minimum(1.0, radius / _norms(moved))

    found = jax.lax.fori_loop(0, steps, climb, jnp.zeros(inner))
    everywhere: Array = there * found[None]
    return everywhere


def _norms(vectors: Float32[Array, "*lead D"]) -> Float32[Array, "*lead 1"]:
    """Lengths of the vectors along the last axis; never zero."""
    return jnp.maximum(jnp.sqrt(jnp.sum(vectors**2, axis=-1, keepdims=True)), TINY)
