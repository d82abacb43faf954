"""Llamas in the Hugging Face folder layout, in and out: config.json and safetensors, no pickle."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - teaches numpy, and so safetensors, bfloat16
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jaxorg.llama import files
from jaxorg.llama.config_file import read_config, write_config
from jaxorg.llama.names import resolve
from jaxorg.runtime import Refusal

__all__ = [
    "digest",
    "load",
    "read_config",
    "resolve",
    "verify",
    "weight_files",
    "write_config",
    "write_weights",
]

SPEECH_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)

Weights = dict[str, Any]  # nested dict of arrays, as `engine.step.split` gives

_FLOATS = ("F64", "F32", "BF16", "F16")  # others belong to quantised models


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


def _norm(module: str) -> dict[str, _Source]:
    return {"scale": _Source(f"{module}.weight")}


_LAYER = "model.layers.{}"
_SOURCES: Mapping[str, Any] = {
    "embedding": _Source("model.embed_tokens.weight"),
    "head": _Source("lm_head.weight"),
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
