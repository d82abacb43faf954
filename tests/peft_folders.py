"""Bases and adapter folders for tests, written without PEFT."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tiny import TINY
from weights import random_weights

from jaxorg.llama import checkpoint
from jaxorg.llama.model import LlamaConfig
from jaxorg.planning.signature import ModelSignature

TIED = replace(TINY, vocab_size=48, intermediate_size=40, num_hidden_layers=3)
UNTIED = replace(TIED, tie_word_embeddings=False)
BIASED = replace(UNTIED, attention_bias=True, mlp_bias=True)
QWEN = replace(TIED, qkv_bias=True)

WEIGHTS = "adapter_model.safetensors"
Tensors = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]
LAYER = "model.layers.1"
Q, UP = f"{LAYER}.self_attn.q_proj", f"{LAYER}.mlp.up_proj"
NORM = f"{LAYER}.input_layernorm"
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
TOKENS = f"{EMBEDDING}.token_adapter.trainable_tokens_delta"


def write_base(folder: Path, config: LlamaConfig) -> Path:
    """Write a base of random weights, none of which are zeros or alike."""
    folder.mkdir()
    checkpoint.write_config(folder, config)
    checkpoint.write_weights(folder, random_weights(ModelSignature(config))[0])
    return folder


def pair(module: str, rank: int = 2, ins: int = 32, outs: int = 32) -> dict[str, tuple[int, ...]]:
    """The shapes of one module's A and B."""
    return {f"{module}.lora_A.weight": (rank, ins), f"{module}.lora_B.weight": (outs, rank)}


def drawn(shapes: Shapes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def write_adapter(folder: Path, held: Tensors, **said: Any) -> Path:
    """Write an adapter of rank 2 and alpha 6."""
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": [Q], **said}
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({f"base_model.model.{name}": held[name] for name in held}, folder / WEIGHTS)
    return folder
