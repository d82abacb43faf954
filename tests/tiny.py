"""A base model of a few thousand parameters with random weights, made in a moment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import pytest

from jaxorg.data.toy_tokenizer import train_toy
from jaxorg.engine.params import create, split
from jaxorg.llama import checkpoint
from jaxorg.llama.model import LlamaConfig
from jaxorg.planning.signature import ModelSignature

TINY = LlamaConfig(
    vocab_size=768,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    max_position_embeddings=128,
)
# For whole sweeps, whose programs compile in two thirds of the time.
SHALLOW = replace(TINY, num_hidden_layers=1)


def write_base(folder: Path, seed: int = 0, config: LlamaConfig = SHALLOW) -> Path:
    """Write a tiny model with the toy tokenizer in the Hugging Face layout."""
    train_toy(folder, TINY.vocab_size)
    checkpoint.write_config(folder, config)
    signature = ModelSignature(config)
    _, (weights, _) = split(signature, create(signature, jax.random.key(seed)))
    checkpoint.write_weights(folder, weights)
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny base model. Copy it to change it."""
    return write_base(tmp_path_factory.mktemp("tiny") / "base")
