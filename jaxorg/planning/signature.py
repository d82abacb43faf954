"""What shapes compiled programs: runs with equal signatures are trained by one program."""

from __future__ import annotations

from dataclasses import dataclass

from jaxorg.llama.lora import LoraConfig
from jaxorg.llama.model import LlamaConfig


@dataclass(frozen=True)
class ModelSignature:
    """What shapes a run's forward pass."""

    config: LlamaConfig
    lora: LoraConfig | None = None  # None trains all weights; of the largest rank in a cohort
    # Weights that are not trained are on a device once: of adapters' one base, or of a model that
    # only speaks.
    shared_frozen: bool = False
    dtype: str = "float32"
    unroll: bool = True  # lay layers out one after another; see `unrolls`
    remat: bool = False  # compute each layer's activations again in the backward pass


def unrolls(config: LlamaConfig) -> bool:
    """Whether to unroll layers: that is faster where they are few and small, and slower to compile
    where they are many (jax-ml/jax#24411)."""
    return config.num_hidden_layers <= 12


@dataclass(frozen=True)
class Signature:
    """What shapes a run's training program; everything else about it is a swept array."""

    model: ModelSignature
    length: int  # tokens a row, T
    batch: int  # rows a step, B
    optimizer: str
    schedule: str
    packing: bool = False  # several conversations a row
    state_dtype: str = "float32"  # in which the optimizer's state is kept between steps
    objective: str = ""  # the treatment whose objective a step lowers; "" for the loss of SFT
    refresh: int | None = None  # steps between the optimizer's renewals; None: as its family says
    inner_steps: int = 0  # of ascent to the worst disturbance within a step; see `engine.latent`
    change: str = ""  # what is done to the weights at the start; see `engine.step.changed`
    swept: tuple[str, ...] = ()  # names of the recipe's own swept scalars
