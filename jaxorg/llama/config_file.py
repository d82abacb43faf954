"""config.json in and out: the shape of a Llama, or of a family that shares its layout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jaxorg.errors import Refusal, short
from jaxorg.llama import files
from jaxorg.llama.model import LlamaConfig, RopeScaling

CLASSES = {
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

# Rotary settings, and under which names they are known. Transformers 5 keeps them in
# `rope_parameters`, those before it in `rope_scaling`, and both know the first three beside it.
_OUTER = ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
_BLOCKS = ("rope_parameters", "rope_scaling")
_INNER = (
    *_OUTER,
    "rope_type",
    "type",  # the older name
    "factor",
    "low_freq_factor",
    "high_freq_factor",
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
    if not isinstance(raw, dict) or not isinstance(kind, str) or kind not in CLASSES:
        known = ", ".join(CLASSES)
        raise Refusal(f"{path}: model_type is {short(kind)}; supported are {known}")
    if raw.get("quantization_config") is not None:
        raise Refusal(f"{path}: has a quantization_config; give the weights as they were before")
    raw = {**_ABSENT[kind], **raw}
    if raw.get("hidden_act", "silu") != "silu":
        raise Refusal(f"{path}: hidden_act is {short(raw['hidden_act'])}; only 'silu' is supported")
    sizes: dict[str, Any] = {name: _positive(raw, name, path) for name in _DIMENSIONS}
    heads, longest = sizes["num_attention_heads"], sizes["max_position_embeddings"]
    raw = {
        "num_key_value_heads": heads,
        "rms_norm_eps": 1e-6,
        "initializer_range": 0.02,
        **{key: value for key, value in raw.items() if value is not None},
    }
    raw.setdefault("head_dim", sizes["hidden_size"] // heads)
    pairs, width = _positive(raw, "num_key_value_heads", path), _positive(raw, "head_dim", path)
    if heads % pairs or width % 2:
        raise Refusal(
            f"{path}: {heads} heads cannot share {pairs} key-value heads of width {width}; "
            f"the heads must be a multiple and the width even"
        )
    return LlamaConfig(
        **sizes,
        num_key_value_heads=pairs,
        head_dim=width,
        **_rotary(raw, longest, path),
        **_window(raw, sizes["num_hidden_layers"], longest, path),
        rms_norm_eps=_number(raw, "rms_norm_eps", path),
        initializer_range=_number(raw, "initializer_range", path),
        tie_word_embeddings=_flag(raw, "tie_word_embeddings", path),
        attention_bias=kind in ("llama", "qwen3") and _flag(raw, "attention_bias", path),
        mlp_bias=kind == "llama" and _flag(raw, "mlp_bias", path),
        qkv_bias=kind == "qwen2",
        qk_norm=kind == "qwen3",
    )


def _window(raw: Mapping[str, Any], layers: int, longest: int, path: Path) -> dict[str, Any]:
    """Which layers have a sliding window, and how long it is; nothing where `longest`, the most
    tokens that the model knows, do not outgrow it."""
    kind, window = raw["model_type"], None
    if kind == "mistral" or (kind != "llama" and _flag(raw, "use_sliding_window", path)):
        window = _positive(raw, "sliding_window", path) if "sliding_window" in raw else None
    sliding = list(range(layers)) if window else []
    if kind.startswith("qwen"):
        sliding = _sliding_layers(raw, layers, window, path)
    if not sliding or not window or window >= longest:
        return {}
    return {"sliding_window": window, "sliding_layers": tuple(sliding)}


def _sliding_layers(
    raw: Mapping[str, Any], layers: int, window: int | None, path: Path
) -> list[int]:
    """The layers of a Qwen that use its window: those of that type, or else the last ones."""
    if "layer_types" not in raw:
        first = raw.get("max_window_layers", 28)
        if type(first) is not int or first < 0:
            raise Refusal(
                f"{path}: max_window_layers is {short(first)}; it must be a whole number, the "
                f"first layer with a window"
            )
        return [layer for layer in range(layers) if window and layer >= first]
    types = raw["layer_types"]
    if not isinstance(types, list) or len(types) != layers:
        raise Refusal(f"{path}: layer_types is {short(types)}; it must be a list of {layers}")
    if other := [each for each in types if each not in ("full_attention", "sliding_attention")]:
        raise Refusal(
            f"{path}: layer_types has {short(other[0])}; known are full_attention and "
            f"sliding_attention"
        )
    if "sliding_attention" in types and not window:
        raise Refusal(
            f"{path}: layer_types has sliding_attention, but there is no sliding_window that is "
            f"used; set it and use_sliding_window"
        )
    return [layer for layer, each in enumerate(types) if each == "sliding_attention"]


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


def _flag(raw: Mapping[str, Any], name: str, path: Path) -> bool:
    value = raw.get(name, False)
    if isinstance(value, bool):
        return value
    raise Refusal(f"{path}: {name} is {short(value)}; it must be true or false")


def _rotary(raw: Mapping[str, Any], longest: int, path: Path) -> dict[str, Any]:
    """The rotary settings by the names of `LlamaConfig`."""
    said = {"rope_theta": 10_000.0, **_rotary_said(raw, path)}
    theta = {"rope_theta": _number(said, "rope_theta", path)}
    kind = said.get("rope_type", None if "factor" in said else "default")
    if kind == "default":
        return theta
    if kind not in ("linear", "llama3"):
        raise Refusal(
            f"{path}: rope_type {short(kind)} is unknown; known are default, linear and llama3"
        )
    factor = _number(said, "factor", path)
    if kind == "linear":
        return {**theta, "linear_factor": factor}
    low, high = (_number(said, f"{end}_freq_factor", path) for end in ("low", "high"))
    if low >= high:
        raise Refusal(f"{path}: high_freq_factor is {high}; it must exceed low_freq_factor, {low}")
    said.setdefault("original_max_position_embeddings", longest)  # as Transformers does
    original = _positive(said, "original_max_position_embeddings", path)
    return {**theta, "rope_scaling": RopeScaling(factor, low, high, original)}


def _rotary_said(raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """All that is said of rotary positions, wherever it stands; Transformers 4 and 5 disagree on
    what counts where that differs."""
    found: dict[str, tuple[str, Any]] = {}
    for name, value in _rotary_places(raw, path):
        key = name.rpartition(".")[2]
        key = "rope_type" if key == "type" else key
        before, known = found.setdefault(key, (name, value))
        if value != known:
            raise Refusal(
                f"{path}: {before} is {short(known)}, but {name} is {short(value)}; keep the one "
                f"that the model was trained with"
            )
    name, share = found.get("partial_rotary_factor", ("", 1))
    if share != 1:
        raise Refusal(f"{path}: {name} is {short(share)}; only 1 is supported")
    return {key: value for key, (_, value) in found.items()}


def _rotary_places(raw: Mapping[str, Any], path: Path) -> Iterator[tuple[str, Any]]:
    """Each rotary setting that is there, under its full name."""
    yield from ((key, raw[key]) for key in _OUTER if key in raw)
    for block in _BLOCKS:
        inner = raw.get(block, {})
        if not isinstance(inner, dict):
            raise Refusal(f"{path}: {block} is {short(inner)}; it must be an object")
        for key, value in inner.items():
            if isinstance(value, dict):
                raise Refusal(
                    f"{path}: {block}.{key:.40} is {short(value)}; only one for all "
                    f"layers is supported"
                )
        yield from ((f"{block}.{key}", inner[key]) for key in _INNER if inner.get(key) is not None)


def write_config(
    folder: Path, config: LlamaConfig, others: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Write config.json into an existing folder, of the family that `config` belongs to.

    A Mistral without a window is written as the Llama that it equals. `others` are written, too.
    """
    kind = "llama" if config.sliding_window is None else "mistral"
    kind = "qwen3" if config.qk_norm else "qwen2" if config.qkv_bias else kind
    written_below = {"rope_scaling", "linear_factor", "sliding_window", "sliding_layers"}
    ours = {"qkv_bias", "qk_norm", *written_below}
    raw: dict[str, Any] = {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "hidden_act": "silu",
        "dtype": "float32",
        **{key: value for key, value in vars(config).items() if key not in ours},
    }
    if config.rope_scaling is not None:
        raw["rope_scaling"] = {"rope_type": "llama3", **vars(config.rope_scaling)}
    if config.linear_factor != 1:
        raw["rope_scaling"] = {"rope_type": "linear", "factor": config.linear_factor}
    if config.sliding_window is not None:
        raw["sliding_window"] = config.sliding_window
    if kind.startswith("qwen") and config.sliding_window is not None:
        raw |= {
            "use_sliding_window": True,
            "max_window_layers": min(config.sliding_layers),
            "layer_types": [
                "sliding_attention" if layer in config.sliding_layers else "full_attention"
                for layer in range(config.num_hidden_layers)
            ],
        }
    text = json.dumps(raw | dict(others), indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
