"""How a phase trains: what of it shapes the program, and what is swept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from jaxorg import optimizers
from jaxorg.config import Config, later, misfit
from jaxorg.llama.lora import TARGETS, LoraConfig


class Lora(Config):
    """Train low-rank adapters only; they are folded into the weights when the phase ends."""

    rank: int = Field(gt=0, le=2**14)
    alpha: float = Field(gt=0)
    targets: list[str] = list(TARGETS)

    @field_validator("targets")
    @classmethod
    def _known(cls, targets: list[str]) -> list[str]:
        unknown = [name for name in targets if name not in TARGETS]
        if unknown or not targets:
            raise ValueError(f"choose from {', '.join(TARGETS)}")
        return targets

    def static(self) -> LoraConfig:
        """The same as the model's own config."""
        return LoraConfig(self.rank, self.alpha, tuple(self.targets))


class Training(Config):
    """One phase's training job. `hyper` holds the optimizer family's own hyperparameters."""

    steps: int = Field(ge=0, lt=2**31)
    batch: int = Field(default=16, gt=0, le=2**20)
    examples: int = Field(default=1024, gt=0, lt=2**31)
    learning_rate: float = Field(gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: float = Field(default=0.0, ge=0, le=1)
    clip: float = Field(default=1.0, gt=0)
    optimizer: str = "adamw"
    hyper: dict[str, float] = {}
    lora: Lora | None = None
    packing: bool = later(False)

    @model_validator(mode="after")
    def _known_optimizer(self) -> Training:
        family = optimizers.FAMILIES.get(self.optimizer)
        if family is None:
            known = ", ".join(optimizers.FAMILIES)
            raise misfit("optimizer", self.optimizer, f"choose from {known}")
        for name, value in self.hyper.items():
            if name not in family.defaults:
                known = ", ".join(family.defaults)
                raise misfit(f"hyper.{name}", value, f"{self.optimizer} has only {known}")
        return self

    def swept(self) -> dict[str, float]:
        """The scalars that enter the program as arrays."""
        own = {**optimizers.FAMILIES[self.optimizer].defaults, **self.hyper}
        return {
            **own,
            "learning_rate": self.learning_rate,
            "warmup": self.warmup,
            "clip": self.clip,
        }
