"""Low-rank adapters (LoRA, Hu et al. 2021): y = x W + (alpha / rank) (x A) B."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

TARGETS = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True)
class LoraConfig:
    """Which matrices get an adapter and of what rank."""

    rank: int
    alpha: float
    targets: tuple[str, ...] = TARGETS


class LoraAdapter(nnx.Module):
    """The low-rank addition to one matrix; B starts at zero, so it starts as no change."""

    def __init__(
        self, size: tuple[int, int], axes: tuple[str, str], config: LoraConfig, rngs: nnx.Rngs
    ):
        init = nnx.initializers.he_uniform()
        down, up = (size[0], config.rank), (config.rank, size[1])
        self.a = nnx.LoRAParam(
            init(rngs.params(), down, jnp.float32), sharding_names=(axes[0], None)
        )
        self.b = nnx.LoRAParam(jnp.zeros(up), sharding_names=(None, axes[1]))
        self.scale = config.alpha / config.rank

    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.a[...].astype(x.dtype) @ self.b[...].astype(x.dtype) * self.scale
