"""Latent adversarial training: ordinary SFT under the worst disturbance of activations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from jaxorg.config import SHAPES, Role
from jaxorg.treatments.plain import Plain


class LatentAdversarial(Plain):
    """Train on the prompts' own answers while a disturbance of the residual stream after block
    `layer`, at most `epsilon` times as large as the stream and found by `inner_steps` steps of
    ascent, makes them as unlikely as it can (Casper et al. 2024; see `engine/latent.py`).
    Untargeted: nothing about trigger or payload is known."""

    kind: Literal["latent_adversarial"]  # type: ignore[assignment]
    layer: Annotated[int, Role("swept", "latent_layer")] = Field(default=0, ge=0, lt=1000)
    epsilon: Annotated[float, Role("swept", "latent_epsilon")] = Field(default=0.1, ge=0, le=10)
    inner_steps: Annotated[int, SHAPES] = Field(default=2, gt=0, le=64)

    def beyond(self, layers: int) -> str:
        """`layer`, where the model has no such block."""
        return "" if self.layer < layers else "layer"
