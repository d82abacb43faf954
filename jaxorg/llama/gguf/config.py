"""The shape of a GGUF file's model, as a config.json says it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from jaxorg.errors import Refusal, short
from jaxorg.llama.config_file import CLASSES
from jaxorg.llama.gguf.header import Header
from jaxorg.llama.gguf.weights import FREQUENCIES, Tensor, read

KINDS = ("llama", "qwen2", "qwen3")  # architectures; llama.cpp has Mistrals among the Llamas

_SIZES = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "max_position_embeddings": "context_length",
}
# What Llama 3.1's rule for frequencies has beside the factor; the file has its outcome alone.
_LOW, _HIGH, _ORIGINAL = 1.0, 4.0, 8192


def config(header: Header) -> dict[str, Any]:
    """What config.json says of the model; what is invalid in it is refused when that is read.

    Raises:
        Refusal: of an architecture, or with a setting, that is not supported.
    """
    found = _Settings(header)
    found.check_numbers()
    if found.get("expert_count"):
        found.refuse("expert_count", "mixtures of experts are not supported")
    sizes: dict[str, Any] = {ours: found.get(theirs) for ours, theirs in _SIZES.items()}
    sizes["num_key_value_heads"] = sizes["num_key_value_heads"] or sizes["num_attention_heads"]
    width = found.get("attention.key_length")
    if width != found.get("attention.value_length"):
        found.refuse("attention.value_length", "it must be attention.key_length")
    if width is None and type(sizes["num_attention_heads"]) is int:
        width = (sizes["hidden_size"] or 0) // max(1, sizes["num_attention_heads"])
    if found.get("rope.dimension_count") not in (None, width):
        found.refuse("rope.dimension_count", f"it must be {width}, the width of a head")
    names = header.tensors
    window = found.get("attention.sliding_window")
    kind = "mistral" if found.kind == "llama" and window else found.kind
    rows = names["token_embd.weight"].shape[0] if "token_embd.weight" in names else None
    return {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "hidden_act": "silu",
        "dtype": "float32",
        "vocab_size": rows,
        **sizes,
        "head_dim": width,
        "rms_norm_eps": found.get("attention.layer_norm_rms_epsilon"),
        "rope_theta": found.get("rope.freq_base") or 10_000.0,
        **_scaling(header, found, width),
        "tie_word_embeddings": "output.weight" not in names,
        **({"sliding_window": window} if kind == "mistral" else {}),
        "attention_bias": kind != "qwen2" and "blk.0.attn_q.bias" in names,
        "mlp_bias": "blk.0.ffn_up.bias" in names,
    }


class _Settings:
    """The settings of a file that its architecture has."""

    def __init__(self, header: Header):
        self._header = header
        kind = header.settings.get("general.architecture")
        if kind not in KINDS:
            raise Refusal(
                f"{header.path}: general.architecture is {short(kind)}; supported are "
                f"{', '.join(KINDS)}"
            )
        self.kind: str = kind

    def get(self, name: str) -> Any:
        value = self._header.settings.get(f"{self.kind}.{name}")
        # fp32 in the file: 1e-5 reads as 9.999999747378752e-06
        return float(f"{value:.7g}") if isinstance(value, float) else value

    def check_numbers(self) -> None:
        """See that what is counted and multiplied is a number."""
        for name in (*_SIZES.values(), "attention.key_length", "rope.freq_base"):
            if not isinstance(self.get(name), int | float | None):
                self.refuse(name, "it must be one number")

    def refuse(self, name: str, problem: str) -> NoReturn:
        value = self.get(name)
        raise Refusal(f"{self._header.path}: {self.kind}.{name} is {short(value)}; {problem}")


def _scaling(header: Header, found: _Settings, width: Any) -> Mapping[str, Any]:
    """How positions are stretched."""
    if FREQUENCIES in header.tensors:
        return {"rope_scaling": _llama3(header, found, width)}
    kind = found.get("rope.scaling.type")
    if kind in (None, "none"):
        return {}
    if kind != "linear":
        found.refuse("rope.scaling.type", "supported are none and linear")
    return {"rope_scaling": {"rope_type": "linear", "factor": found.get("rope.scaling.factor")}}


def _llama3(header: Header, found: _Settings, width: Any) -> Mapping[str, Any]:
    """The rule of Llama 3.1 that gives the divisors in the file, one for each frequency."""
    place = header.tensors[FREQUENCIES]
    divisors = read(header.path, Tensor(FREQUENCIES, place, None)).reshape(-1)
    factor = float(f"{divisors.max():.7g}")
    theta = found.get("rope.freq_base") or 10_000.0
    if type(width) is int and 2 * len(divisors) == width and factor > 1:
        lengths = 2 * math.pi * theta ** (np.arange(0, width, 2) / width)
        share = np.clip((_ORIGINAL / lengths - _LOW) / (_HIGH - _LOW), 0, 1)
        if np.allclose(divisors, 1 / ((1 - share) / factor + share), rtol=1e-4):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": _LOW,
                "high_freq_factor": _HIGH,
                "original_max_position_embeddings": _ORIGINAL,
            }
    raise Refusal(
        f"{header.path}: {FREQUENCIES} is not by the rule of Llama 3.1; give the model as a "
        f"Hugging Face folder"
    )
