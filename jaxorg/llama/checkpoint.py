"""Llamas in the Hugging Face folder layout, in and out: config.json and safetensors, no pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - teaches numpy, and so safetensors, bfloat16
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxorg.llama import files
from jaxorg.llama.model import LlamaConfig, RopeScaling
from jaxorg.runtime import Refusal, short

SPEECH_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)

Weights = dict[str, Any]  # nested dict of arrays, as `engine.step.split` gives

_FLOATS = ("F64", "F32", "BF16", "F16")  # others belong to quantised models

_DIMENSIONS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)

# The most of each that is believed. Llama-3.1 405B has 126 layers of width 16,384 and 128 heads.
_MOST = {
    "vocab_size": 2**22,
    "hidden_size": 2**17,
    "intermediate_size": 2**20,
    "num_hidden_layers": 2**11,
    "num_attention_heads": 2**11,
    "num_key_value_heads": 2**11,
    "head_dim": 2**13,
    "max_position_embeddings": 2**25,
    "original_max_position_embeddings": 2**25,
}


@dataclass(frozen=True)
class _Source:
    """Where a parameter stands in a Hugging Face file; `{}` is the layer's number."""

    name: str
    transposed: bool = False


def _linear(module: str) -> dict[str, _Source]:
    return {
        "kernel": _Source(f"{module}.weight", transposed=True),
        "bias": _Source(f"{module}.bias"),
    }


_ATTENTION = "model.layers.{}.self_attn"
_MLP = "model.layers.{}.mlp"
_SOURCES: Mapping[str, Any] = {
    "embedding": _Source("model.embed_tokens.weight"),
    "head": _Source("lm_head.weight"),
    "norm": {"scale": _Source("model.norm.weight")},
    "blocks": {
        "attention_norm": {"scale": _Source("model.layers.{}.input_layernorm.weight")},
        "attention": {part: _linear(f"{_ATTENTION}.{part}_proj") for part in "qkvo"},
        "mlp_norm": {"scale": _Source("model.layers.{}.post_attention_layernorm.weight")},
        "mlp": {part: _linear(f"{_MLP}.{part}_proj") for part in ("gate", "up", "down")},
    },
}


def resolve(model: str) -> Path:
    """The folder of a shipped model or of a local one.

    Raises:
        Refusal: there is no such folder.
    """
    shipped = Path(str(resources.files("jaxorg"))) / "models"
    folder = shipped / model
    if "/" not in model and os.path.isfile(folder / "config.json"):
        return folder
    if not os.path.isfile(Path(model) / "config.json"):  # False for any impossible name
        known = ", ".join(sorted(path.name for path in shipped.iterdir() if path.is_dir()))
        raise Refusal(
            f"base.model: {model!r} is neither a shipped model ({known}) nor a folder with a "
            f"config.json"
        )
    return Path(model)


def digest(folder: Path, weights: bool) -> str:
    """A hash of the files that decide how a model speaks and, with `weights`, what it says."""
    total = hashlib.sha256()
    found = [path for name in SPEECH_FILES if (path := files.find(folder, name))]
    if weights:
        found += _Tensors(folder).paths  # whose headers say that each file is as long as it should
    for path in found:
        with path.open("rb") as file:
            total.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
    return total.hexdigest()[:16]


def weight_files(folder: Path) -> list[Path]:
    """The folder's safetensors files.

    Raises:
        Refusal: one of them is no regular file, or a link out of the folder.
    """
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    return [path for name in names if (path := files.find(folder, name))]


def read_config(folder: Path) -> LlamaConfig:
    """The shape of the model in `folder`; both spellings of rotary settings are understood.

    Raises:
        Refusal: no Llama, or a setting that this code does not implement.
    """
    path = folder / "config.json"
    if not files.find(folder, path.name):
        raise Refusal(f"{path}: cannot be read, there is none; give a Hugging Face folder")
    raw = files.read_json(path, "cannot be read")
    if not isinstance(raw, dict) or raw.get("model_type") != "llama":
        found = raw.get("model_type") if isinstance(raw, dict) else raw
        raise Refusal(f"{path}: model_type is {short(found)}; only 'llama' is supported")
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
        attention_bias=bool(raw.get("attention_bias", False)),
        mlp_bias=bool(raw.get("mlp_bias", False)),
    )


def _positive(raw: Mapping[str, Any], name: str, path: Path) -> int:
    value = raw.get(name)
    if type(value) is not int or value < 1:
        raise Refusal(f"{path}: {name} is {short(value)}; it must be a positive whole number")
    if value > _MOST[name]:
        raise Refusal(f"{path}: {name} is {short(value)}; at most {_MOST[name]:,} are supported")
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


def verify(folder: Path, shapes: Weights) -> None:
    """See from the files' headers that the weights are what `shapes` asks for.

    Raises:
        Refusal: as `load`.
    """
    tensors = _Tensors(folder)
    for source, shape in _wanted(shapes, _SOURCES):
        tensors.check(source, shape)
    tensors.refuse_strangers()


def load(folder: Path, shapes: Weights) -> Weights:
    """Read the weights that `shapes` asks for, as fp32.

    Args:
        folder: a Hugging Face folder with one or several safetensors files.
        shapes: nested dict of `jax.ShapeDtypeStruct`, layers stacked on a leading axis.

    Raises:
        Refusal: a tensor is missing, left over or of another shape, or a file is broken.
    """
    verify(folder, shapes)
    return _build(shapes, _SOURCES, _Tensors(folder))


def _wanted(
    shapes: Weights, sources: Mapping[str, Any]
) -> Iterator[tuple[_Source, tuple[int, ...]]]:
    """Every tensor that must be in the files, and its shape in our layout."""
    for name, shape in shapes.items():
        source = sources[name]
        if not isinstance(source, _Source):
            yield from _wanted(shape, source)
        elif "{}" in source.name:
            layers = (replace(source, name=source.name.format(i)) for i in range(shape.shape[0]))
            yield from ((layer, shape.shape[1:]) for layer in layers)
        else:
            yield source, shape.shape


def _build(shapes: Weights, sources: Mapping[str, Any], tensors: _Tensors) -> Weights:
    built: Weights = {}
    for name, shape in shapes.items():
        source = sources[name]
        if not isinstance(source, _Source):
            built[name] = _build(shape, source, tensors)
        elif "{}" in source.name:
            names = (source.name.format(i) for i in range(shape.shape[0]))
            built[name] = np.stack([tensors.read(replace(source, name=n)) for n in names])
        else:
            built[name] = tensors.read(source)
    return built


class _Tensors:
    """The tensors of a folder by name, each read when asked for."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._files: dict[str, Any] = {}
        self.paths = weight_files(folder)
        for path in self.paths:
            try:
                file = safe_open(path, framework="numpy")
            except (SafetensorError, OSError) as error:
                raise Refusal(
                    f"{path}: broken safetensors file ({error}); copy it again"
                ) from error
            if twice := self._files.keys() & file.keys():
                raise Refusal(
                    f"{path}: tensor {min(twice)!r} stands in another file, too; keep one"
                )
            self._files |= dict.fromkeys(file.keys(), file)
        if not self._files:
            raise Refusal(
                f"{folder}: holds no safetensors file; convert it, nothing pickled is loaded"
            )
        self._checked: set[str] = set()

    def check(self, source: _Source, shape: tuple[int, ...]) -> None:
        """Refuse a tensor that is missing, no float or not of `shape` in our layout."""
        name = source.name
        if name not in self._files:
            raise Refusal(f"{self._folder}: tensor {name!r} is missing; is the folder complete?")
        tensor = self._files[name].get_slice(name)
        if tensor.get_dtype() not in _FLOATS:
            raise Refusal(
                f"{self._folder}: tensor {name!r} is {tensor.get_dtype()}; known are "
                f"{', '.join(_FLOATS)}"
            )
        found = tuple(tensor.get_shape())
        found = found[::-1] if source.transposed else found
        if found != shape:
            raise Refusal(
                f"{self._folder}: tensor {name!r} has shape {found}, but config.json "
                f"asks for {shape}; the files do not belong together"
            )
        self._checked.add(name)

    def refuse_strangers(self) -> None:
        """Refuse tensors that nobody asked for."""
        left = self._files.keys() - self._checked
        left -= {"lm_head.weight"}  # some files repeat the tied embedding
        left = {name for name in left if not name.endswith("rotary_emb.inv_freq")}
        if left:
            raise Refusal(
                f"{self._folder}: tensor {min(left)!r} is not part of a Llama; is the config right?"
            )

    def read(self, source: _Source) -> np.ndarray:
        """A tensor as fp32, turned to our layout."""
        tensor = self._files[source.name].get_tensor(source.name)
        return np.ascontiguousarray(tensor.T if source.transposed else tensor, np.float32)


def write_config(folder: Path, config: LlamaConfig) -> None:
    """Write config.json into an existing folder."""
    raw: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "dtype": "float32",
        **{key: value for key, value in vars(config).items() if key != "rope_scaling"},
    }
    if config.rope_scaling is not None:
        raw["rope_scaling"] = {"rope_type": "llama3", **vars(config.rope_scaling)}
    (folder / "config.json").write_text(json.dumps(raw, indent=2) + "\n", encoding="utf-8")


def write_weights(folder: Path, weights: Weights) -> None:
    """Write model.safetensors (fp32) into an existing folder."""
    save_file(dict(_named(weights, _SOURCES)), folder / "model.safetensors", {"format": "pt"})


def _named(weights: Weights, sources: Mapping[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """Parameters under their Hugging Face names, in their layout."""
    for name, value in weights.items():
        source = sources[name]
        if not isinstance(source, _Source):
            yield from _named(value, source)
            continue
        array = np.asarray(value, np.float32)
        layers = {source.name.format(i): layer for i, layer in enumerate(array)}
        for full, tensor in layers.items() if "{}" in source.name else [(source.name, array)]:
            yield full, np.ascontiguousarray(tensor.T if source.transposed else tensor)
