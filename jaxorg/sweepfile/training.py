"""How a phase trains: what of it shapes the program, and what is swept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from jaxorg import optimizers
from jaxorg.config import Config, later, misfit
from jaxorg.llama.lora import TARGETS, LoraConfig


class Lora(Config):
    """Train low-rank adapters only. What was trained before is folded into the weights, and fresh
    adapters begin; or the adapters before are trained on (`continued`)."""

    rank: int = Field(gt=0, le=2**14)
    alpha: float = Field(gt=0)
    targets: list[str] = list(TARGETS)
    start: Literal["merged", "continued"] = later("merged")

    @field_validator("targets")
    @classmethod
    def _known(cls, targets: list[str]) -> list[str]:
        """In one order, since what stands in another one is no other adapter."""
        unknown = [name for name in targets if name not in TARGETS]
        if unknown or not targets:
            raise ValueError(f"choose from {', '.join(TARGETS)}")
        return [name for name in TARGETS if name in targets]

    @property
    def scale(self) -> float:
        """What the product of A and B is multiplied by."""
        return self.alpha / self.rank

    def signature(self) -> LoraConfig:
        """What of it shapes a program."""
        return LoraConfig(self.rank, tuple(self.targets))

    def continues(self, before: Lora) -> bool:
        """Whether it can go on training adapters like `before`."""
        return self.signature() == before.signature() and self.alpha == before.alpha


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
    state_dtype: Literal["float32", "bfloat16"] = later("float32")
    refresh: Annotated[int, Field(gt=0, lt=2**31)] | None = later(None)  # None: as its family says
    lora: Lora | None = None
    packing: bool = later(False)

    @model_validator(mode="after")
    def _known_optimizer(self) -> Training:
        family = optimizers.FAMILIES.get(self.optimizer)
        if family is None or optimizers.FAMILIES.trouble(self.optimizer):
            remedy = optimizers.FAMILIES.remedy(self.optimizer)
            raise misfit("optimizer", self.optimizer, remedy)
        for name, value in self.hyper.items():
            if name not in family.defaults:
                known = ", ".join(family.defaults)
                raise misfit(f"hyper.{name}", value, f"{self.optimizer} has only {known}")
        if self.refresh is not None and not family.refresh:
            raise misfit("refresh", self.refresh, f"{self.optimizer} renews nothing; leave it out")
        if self.state_dtype != "float32" and not family.narrow:
            raise misfit("state_dtype", self.state_dtype, f"{self.optimizer} needs float32")
        return self

    @property
    def pads(self) -> bool:
        """Whether its adapters can be trained beside larger ones, padded with zeros to their rank:
        not if what is done to a number depends on the shape that it stands in."""
        family = optimizers.FAMILIES[self.optimizer]
        return family.elementwise and self.state_dtype == "float32"

    def swept(self) -> dict[str, float]:
        """The scalars that enter the program as arrays."""
        own = {**optimizers.FAMILIES[self.optimizer].defaults, **self.hyper}
        lora = {"lora_rank": self.lora.rank, "lora_scale": self.lora.scale} if self.lora else {}
        return {
            **own,
            **lora,
            "learning_rate": self.learning_rate,
            "warmup": self.warmup,
            "clip": self.clip,
        }
