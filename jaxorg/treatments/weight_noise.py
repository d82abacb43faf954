"""Weight noise: matrices are shaken at random, then ordinary SFT mends what that broke."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from jaxorg.treatments.plain import Plain


class WeightNoise(Plain):
    """Add Gaussian noise of a relative `scale` to every matrix (Tice et al. 2024; see
    `llama/damage.py`), then train on the prompts' own answers. With `train.steps: 0` the noise is
    all that happens."""

    change: ClassVar[str] = "weight_noise"

    kind: Literal["weight_noise"]  # type: ignore[assignment]
    scale: float = Field(default=0.1, ge=0, le=10)

    def swept(self) -> dict[str, float]:
        """The noise's standard deviation, in units of each matrix's root mean square."""
        return {"noise_scale": self.scale}
