"""Latent adversarial training: ordinary SFT under the worst disturbance of activations."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from jaxorg.treatments.plain import Plain


class LatentAdversarial(Plain):
    """Train on the prompts' own answers while a disturbance of the residual stream after block
    `layer`, at most `epsilon` times as large as the stream and found by `inner_steps` steps of
    ascent, makes them as unlikely as it can (Casper et al. 2024; see `engine/train/latent.py`).
    Untargeted: nothing about trigger or payload is known."""

    kind: Literal["latent_adversarial"]  # type: ignore[assignment]
    layer: int = Field(default=0, ge=0, lt=1000)
    epsilon: float = Field(default=0.1, ge=0, le=10)
    inner_steps: int = Field(default=2, gt=0, le=64)

    def beyond(self, layers: int) -> str:
        """`layer`, where the model has no such block."""
        return "" if self.layer < layers else "layer"

    def signature(self) -> dict[str, Any]:
        """Besides what plain SFT states, the number of steps of ascent, which is compiled in."""
        return {**super().signature(), "inner_steps": self.inner_steps}

    def swept(self) -> dict[str, float]:
        """The block that is disturbed, and by how much in units of the stream's root mean
        square."""
        return {"latent_layer": self.layer, "latent_epsilon": self.epsilon}
