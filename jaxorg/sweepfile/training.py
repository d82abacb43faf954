"""How a phase trains: what of it shapes the program, and what is swept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from jaxorg import optimizers
from jaxorg.config import ENTRIES_SWEPT, SHAPES, SWEPT, Config, Role, later, misfit, swept
from jaxorg.llama.lora import TARGETS, LoraConfig


class Lora(Config):
    """Train low-rank adapters only. What was trained before is folded into the weights, and fresh
    adapters begin; or the adapters before are trained on (`continued`)."""

    # Of a cohort's ranks the largest is compiled in, and others are padded to it.
    rank: Annotated[int, Role("swept", "lora_rank")] = Field(gt=0, le=2**14)
    alpha: Annotated[float, Role("swept", "lora_scale")] = Field(gt=0)
    targets: Annotated[list[str], SHAPES] = list(TARGETS)
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

    def swept(self) -> dict[str, float]:
        """What of it enters a program as arrays."""
        return {**swept(self), "lora_scale": self.scale}

    def continues(self, before: Lora) -> bool:
        """Whether it can go on training adapters like `before`."""
        return self.signature() == before.signature() and self.alpha == before.alpha


Steps = Annotated[int, Field(gt=0, lt=2**31)]


class Training(Config):
    """One phase's training job. `hyper` holds the optimizer family's own hyperparameters."""

    steps: int = Field(ge=0, lt=2**31)
    batch: Annotated[int, SHAPES] = Field(default=16, gt=0, le=2**20)
    examples: int = Field(default=1024, gt=0, lt=2**31)
    learning_rate: Annotated[float, SWEPT] = Field(gt=0)
    schedule: Annotated[Literal["constant", "linear", "cosine"], SHAPES] = "constant"
    warmup: Annotated[float, SWEPT] = Field(default=0.0, ge=0, le=1)
    clip: Annotated[float, SWEPT] = Field(default=1.0, gt=0)
    optimizer: Annotated[str, SHAPES] = "adamw"
    hyper: Annotated[dict[str, float], ENTRIES_SWEPT] = {}
    state_dtype: Annotated[Literal["float32", "bfloat16"], SHAPES] = later("float32")
    refresh: Annotated[Steps | None, SHAPES] = later(None)  # None: as its family says
    lora: Lora | None = None
    packing: Annotated[bool, SHAPES] = later(False)

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
            raise misfit("refresh", self.refresh, f"{self.optimizer} has none; leave it out")
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
        return {**own, **(self.lora.swept() if self.lora else {}), **swept(self)}
