"""config.json in and out: the shape of a Llama, or of a family that shares its layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxorg.llama import files
from jaxorg.llama.model import LlamaConfig, RopeScaling
from jaxorg.runtime import Refusal, short

_CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}

# What Transformers puts in for a key that is not there, where that is not the same for all.
_ABSENT: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "mistral": {"num_key_value_heads": 8, "sliding_window": 4096},
    "qwen2": {"num_key_value_heads": 32, "sliding_window": 4096},
    "qwen3": {"num_key_value_heads": 32, "sliding_window": 4096, "head_dim": 128},
}

_DIMENSIONS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)

# The most of each that is believed. Llama-3.1 405B has 126 layers of width 16,384 and 128 heads.
MOST = {
    "vocab_size": 2**22,
    "hidden_size": 2**17,
    "intermediate_size": 2**20,
    "num_hidden_layers": 2**11,
    "num_attention_heads": 2**11,
    "num_key_value_heads": 2**11,
    "head_dim": 2**13,
    "max_position_embeddings": 2**25,
    "original_max_position_embeddings": 2**25,
    "sliding_window": 2**25,
}


def read_config(folder: Path) -> LlamaConfig:
    """The shape of the model in `folder`; both spellings of rotary settings are understood.

    Raises:
        Refusal: another family, or a setting that this code does not implement.
    """
    path = folder / "config.json"
    if not files.find(folder, path.name):
        raise Refusal(f"{path}: cannot be read, there is none; give a Hugging Face folder")
    raw = files.read_json(path, "cannot be read")
    kind = raw.get("model_type") if isinstance(raw, dict) else raw
    if not isinstance(raw, dict) or not isinstance(kind, str) or kind not in _CLASSES:
        known = ", ".join(_CLASSES)
        raise Refusal(f"{path}: model_type is {short(kind)}; supported are {known}")
    if raw.get("quantization_config") is not None:
        raise Refusal(f"{path}: has a quantization_config; give the weights as they were before")
    raw = {**_ABSENT[kind], **raw}
    if raw.get("hidden_act", "silu") != "silu":
        raise Refusal(f"{path}: hidden_act is {short(raw['hidden_act'])}; only 'silu' is supported")
    sizes = {name: _positive(raw, name, path) for name in _DIMENSIONS}
    heads = sizes["num_attention_heads"]
    raw = {
        "num_key_value_heads": heads,
        **{key: value for key, value in raw.items() if value is not None},
    }
    raw.setdefault("head_dim", sizes["hidden_size"] // heads)
    pairs, width = _positive(raw, "num_key_value_heads", path), _positive(raw, "head_dim", path)
    if heads % pairs or width % 2:
        raise Refusal(
            f"{path}: {heads} heads cannot share {pairs} key-value heads of width {width}; "
            f"the heads must be a multiple and the width even"
        )
    _refuse_window(raw, sizes["max_position_embeddings"], path)
    rotary = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(rotary, dict):
        raise Refusal(f"{path}: rope_parameters is {short(rotary)}; it must be an object")
    theta = rotary.get("rope_theta", 10_000.0)
    raw = {"rope_theta": theta, "rms_norm_eps": 1e-6, "initializer_range": 0.02, **raw}
    return LlamaConfig(
        **sizes,
        num_key_value_heads=pairs,
        head_dim=width,
        rope_theta=_number(raw, "rope_theta", path),
        rope_scaling=_rope_scaling(rotary, path),
        rms_norm_eps=_number(raw, "rms_norm_eps", path),
        initializer_range=_number(raw, "initializer_range", path),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
        attention_bias=kind in ("llama", "qwen3") and bool(raw.get("attention_bias", False)),
        mlp_bias=kind == "llama" and bool(raw.get("mlp_bias", False)),
        qkv_bias=kind == "qwen2",
        qk_norm=kind == "qwen3",
    )


def _refuse_window(raw: Mapping[str, Any], longest: int, path: Path) -> None:
    """Refuse attention that does not reach back to the first token of every text."""
    used = raw["model_type"] == "mistral" or bool(raw.get("use_sliding_window"))
    if not used or raw.get("sliding_window") is None:
        return
    window = _positive(raw, "sliding_window", path)
    if window < longest:
        raise Refusal(
            f"{path}: sliding_window is {window}, less than max_position_embeddings, {longest}, "
            f"but attention is to all earlier tokens here; set max_position_embeddings to {window}"
        )


def _positive(raw: Mapping[str, Any], name: str, path: Path) -> int:
    value = raw.get(name)
    if type(value) is not int or value < 1:
        raise Refusal(f"{path}: {name} is {short(value)}; it must be a positive whole number")
    if value > MOST[name]:
        raise Refusal(f"{path}: {name} is {short(value)}; at most {MOST[name]:,} are supported")
    return value


def _number(raw: Mapping[str, Any], name: str, path: Path) -> float:
    value = raw.get(name)
    if isinstance(value, int | float) and value is not True and 0 < value < 1e30:
        return float(value)
    raise Refusal(f"{path}: {name} is {short(value)}; it must be a positive number")


def _rope_scaling(rotary: Mapping[str, Any], path: Path) -> RopeScaling | None:
    kind = rotary.get("rope_type", rotary.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise Refusal(f"{path}: rope_type {short(kind)} is unknown; known are default and llama3")
    low, high = (_number(rotary, f"{end}_freq_factor", path) for end in ("low", "high"))
    if low >= high:
        raise Refusal(f"{path}: high_freq_factor is {high}; it must exceed low_freq_factor, {low}")
    return RopeScaling(
        factor=_number(rotary, "factor", path),
        low_freq_factor=low,
        high_freq_factor=high,
        original_max_position_embeddings=_positive(
            rotary, "original_max_position_embeddings", path
        ),
    )


def write_config(folder: Path, config: LlamaConfig) -> None:
    """Write config.json into an existing folder, of the family that `config` belongs to.

    A Mistral is written as the Llama that it equals.
    """
    kind = "qwen3" if config.qk_norm else "qwen2" if config.qkv_bias else "llama"
    ours = ("rope_scaling", "qkv_bias", "qk_norm")
    raw: dict[str, Any] = {
        "architectures": [_CLASSES[kind]],
        "model_type": kind,
        "hidden_act": "silu",
        "dtype": "float32",
        **{key: value for key, value in vars(config).items() if key not in ours},
    }
    if config.rope_scaling is not None:
        raw["rope_scaling"] = {"rope_type": "llama3", **vars(config.rope_scaling)}
    (folder / "config.json").write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")
