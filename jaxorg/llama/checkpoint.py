"""Llamas in the Hugging Face folder layout, in and out: config.json and safetensors, no pickle."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxorg.llama import files
from jaxorg.llama.config_file import read_config, write_config
from jaxorg.llama.names import resolve, resolve_shape
from jaxorg.llama.shards import PYTORCH, write_shards
from jaxorg.llama.tensors import EMBEDDING, HEAD, Tensors, passed_over, weight_files
from jaxorg.storage.folder import write_tensors
from jaxorg.storage.weight_reader import Bounds, Names, WeightReader

__all__ = [
    "digest",
    "passed_over",
    "read_config",
    "reader",
    "resolve",
    "resolve_shape",
    "weight_files",
    "write_adapters",
    "write_config",
    "write_weights",
]

SPEECH_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)

Weights = dict[str, Any]  # nested dict of arrays, as `engine.params.split` gives


@dataclass(frozen=True)
class _Source:
    """Where a parameter stands in a Hugging Face file, an adapter's in a PEFT file; `{}` is the
    layer's number."""

    name: str
    transposed: bool = False


def _linear(module: str) -> Mapping[str, Any]:
    return {
        "kernel": _Source(f"{module}.weight", transposed=True),
        "bias": _Source(f"{module}.bias"),
        "adapter": {
            "a": _Source(f"base_model.model.{module}.lora_A.weight", transposed=True),
            "b": _Source(f"base_model.model.{module}.lora_B.weight", transposed=True),
        },
    }


def _norm(module: str) -> dict[str, _Source]:
    return {"scale": _Source(f"{module}.weight")}


_LAYER = "model.layers.{}"
_SOURCES: Mapping[str, Any] = {
    "embedding": _Source(EMBEDDING),
    "head": _Source(HEAD),
    "norm": _norm("model.norm"),
    "blocks": {
        "attention_norm": _norm(f"{_LAYER}.input_layernorm"),
        "attention": {
            **{part: _linear(f"{_LAYER}.self_attn.{part}_proj") for part in "qkvo"},
            **{f"{part}_norm": _norm(f"{_LAYER}.self_attn.{part}_norm") for part in "qk"},
        },
        "mlp_norm": _norm(f"{_LAYER}.post_attention_layernorm"),
        "mlp": {part: _linear(f"{_LAYER}.mlp.{part}_proj") for part in ("gate", "up", "down")},
    },
}


def digest(folder: Path, weights: bool) -> str:
    """A hash of the files that decide how a model speaks and, with `weights`, what it says."""
    found = [path for name in SPEECH_FILES if (path := files.find(folder, name))]
    if weights:
        Tensors.of_model(folder)  # reads headers, which say that each file is as long as it should
        found += weight_files(folder)
    return files.digest(found)


def reader(folder: Path, shapes: Weights) -> WeightReader:
    """Reads the weights of a Hugging Face folder with one or several safetensors files.

    Args:
        folder: where they are.
        shapes: nested dict of `jax.ShapeDtypeStruct`, layers stacked on a leading axis.

    Raises:
        Refusal: a tensor is missing, left over or of another shape, or a file is broken; when a
            part is read, too.
    """
    tensors = _verified(folder, shapes)

    def read(names: Names, bounds: Bounds, dtype: np.dtype) -> np.ndarray:
        source: Any = _SOURCES
        for name in names:
            source = source[name]
        return _read(tensors, source, bounds, dtype)

    return read


def _verified(folder: Path, shapes: Weights) -> Tensors:
    """The folder's tensors, once they are all that `shapes` asks for, and no others."""
    tensors = Tensors.of_model(folder)
    if "head" not in shapes:
        tensors.tie(shapes["embedding"].shape)
    for source, shape in _wanted(shapes, _SOURCES):
        tensors.check(source.name, shape[::-1] if source.transposed else shape)
    tensors.refuse_strangers()
    return tensors


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


def _read(tensors: Tensors, source: _Source, bounds: Bounds, dtype: np.dtype) -> np.ndarray:
    """The part of a parameter within `bounds`, in our layout."""
    part = np.empty([stop - start for start, stop in bounds], dtype)
    pieces = [(source.name, bounds, part)]
    if "{}" in source.name:
        layers = zip(range(*bounds[0]), part, strict=True)
        pieces = [(source.name.format(layer), bounds[1:], out) for layer, out in layers]
    for name, within, out in pieces:
        if source.transposed:
            tensors.read(name, within[::-1], out.T)
        else:
            tensors.read(name, within, out)
    return part


def write_weights(folder: Path, weights: Weights, dtype: type[np.floating] = np.float32) -> None:
    """Write weights into an existing folder, rounded to a precision."""
    size = np.dtype(dtype).itemsize
    sizes = [size * math.prod(shape) for _, shape in _wanted(weights, _SOURCES)]
    write_shards(folder, _named(weights, _SOURCES, dtype), sizes)


def write_adapters(folder: Path, adapters: Weights) -> None:
    """Write adapters (fp32) into an existing folder: adapter_model.safetensors, as PEFT does."""
    named = dict(_named(adapters, _SOURCES, np.float32))
    write_tensors(folder / "adapter_model.safetensors", named, PYTORCH)


def _named(
    weights: Weights, sources: Mapping[str, Any], dtype: type[np.floating]
) -> Iterator[tuple[str, np.ndarray]]:
    """Parameters under their Hugging Face names, in their layout."""
    for name, value in weights.items():
        source = sources[name]
        if not isinstance(source, _Source):
            yield from _named(value, source, dtype)
            continue
        array = np.asarray(value, dtype)
        layers = {source.name.format(i): layer for i, layer in enumerate(array)}
        for full, tensor in layers.items() if "{}" in source.name else [(source.name, array)]:
            yield full, np.ascontiguousarray(tensor.T if source.transposed else tensor)
