"""Weights for tests: random ones straight from numpy (no compiler involved, and no zeros that hide
mistakes), a folder's on the host, and adapters folded into what they stand beside."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxorg.engine.cohort import Trainer
from jaxorg.engine.params import Params, abstract_model
from jaxorg.llama import checkpoint
from jaxorg.llama.lora import folded
from jaxorg.planning.signature import ModelSignature
from jaxorg.storage.weight_reader import Bounds, Names, WeightReader, everything


def random_weights(signature: ModelSignature, seed: int = 0, spread: float = 0.3) -> Params:
    """A model's weights, biases, norms and adapters included."""
    rng = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return rng.normal(centre, spread, leaf.shape).astype(np.float32)

    _, (trainable, frozen) = abstract_model(signature)
    draw_all = jax.tree_util.tree_map_with_path
    return Params(draw_all(draw, trainable), draw_all(draw, frozen))


def placed_weights(trainer: Trainer, seeds: Sequence[int]) -> Any:
    """Full weights of a trainer's runs, as small as those that a model begins with."""
    signature = replace(trainer.model, lora=None)
    spread = trainer.model.config.initializer_range
    weights = (random_weights(signature, seed, spread)[0] for seed in seeds)
    return trainer.place_weights([held(each) for each in weights])


def load(folder: Path) -> Any:
    """All weights of a Hugging Face folder."""
    shapes = abstract_model(ModelSignature(checkpoint.read_config(folder)))[1].trainable
    return everything(checkpoint.reader(folder, shapes), shapes)


def held(weights: Any) -> WeightReader:
    """Reads a nested dict of host arrays."""

    def read(names: Names, bounds: Bounds, dtype: np.dtype) -> np.ndarray:
        here = weights
        for name in names:
            here = here[name]
        part: np.ndarray = here[tuple(slice(*pair) for pair in bounds)].astype(dtype)
        return part

    return read


def merged(base: Any, adapters: Any, scale: float) -> Any:
    """Full weights: adapters folded into those that they stand beside."""
    return everything(folded(held(base), held(adapters), adapters, scale), base)
