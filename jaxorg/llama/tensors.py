"""The tensors in a folder's safetensors files, read by name and part by part."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - teaches numpy, and so safetensors, bfloat16
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxorg.llama import files
from jaxorg.reading import Bounds
from jaxorg.runtime import Refusal, short

INDEX = "model.safetensors.index.json"

_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}  # others belong to quantised models
_BAND = 2**26  # bytes of a file that are read at a time
_BESIDE = re.compile(r"[^/\\\0]+\.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def weight_files(folder: Path) -> list[Path]:
    """The folder's safetensors files: those that its index names, or all where it has none.

    Raises:
        Refusal: one of them is not there, no regular file, or a link out of the folder; the index
            is broken; or there are pickles alone.
    """
    index = files.find(folder, INDEX)
    present = sorted(path.name for path in folder.glob("*"))
    names = _indexed(index) if index else [name for name in present if _BESIDE.fullmatch(name)]
    if index and "model.safetensors" in set(present) - set(names):
        raise Refusal(
            f"{folder}: holds model.safetensors and {INDEX}, which names others; remove one"
        )
    if pickled := [] if names else [name for name in present if name.endswith(_PICKLES)]:
        raise Refusal(
            f"{folder}: holds no safetensors file, but {short(pickled[0])}; convert it, nothing "
            f"pickled is loaded"
        )
    found = {name: files.find(folder, name) for name in names}
    for name, path in found.items():
        if path is None:
            raise Refusal(f"{folder}: {short(name)} is missing, which {INDEX} names; copy it again")
    return [path for path in found.values() if path]


def _indexed(index: Path) -> list[str]:
    """The files that an index names, all of which stand beside it."""
    content = files.read_json(index)
    named = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(named, dict) or not named:
        raise Refusal(f"{index}: has no weight_map; download it again")
    for name in named.values():
        if not isinstance(name, str) or not _BESIDE.fullmatch(name):
            raise Refusal(
                f"{index}: names the file {short(name)}; it must be a safetensors file beside it"
            )
    return sorted(set(named.values()))


@dataclass(frozen=True)
class _Tensor:
    """What a file's header says of a tensor."""

    path: Path
    dtype: str
    shape: tuple[int, ...]


class Tensors:
    """The tensors of a folder. No file stays open: of a file that does, what was read would count
    as memory of this process."""

    def __init__(self, folder: Path):
        """Raises `Refusal` for files that are broken, or hold a tensor twice, and for none."""
        self._folder = folder
        self._known: dict[str, _Tensor] = {}
        self._checked: set[str] = set()
        self.paths = weight_files(folder)
        for path in self.paths:
            held = _read_header(path)
            if twice := self._known.keys() & held.keys():
                raise Refusal(
                    f"{path}: tensor {min(twice)!r} stands in another file, too; keep one"
                )
            self._known |= held
        if not self._known:
            raise Refusal(f"{folder}: holds no safetensors file with weights; add them")

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Refuse a tensor that is missing, no float or not of `shape`."""
        tensor = self._known.get(name)
        if tensor is None:
            raise Refusal(f"{self._folder}: tensor {name!r} is missing; is the folder complete?")
        if tensor.dtype not in _BYTES:
            raise Refusal(
                f"{self._folder}: tensor {name!r} is {tensor.dtype}; known are {', '.join(_BYTES)}"
            )
        if tensor.shape != shape:
            raise Refusal(
                f"{self._folder}: tensor {name!r} has shape {tensor.shape}, but config.json "
                f"asks for {shape}; the files do not belong together"
            )
        self._checked.add(name)

    def refuse_strangers(self) -> None:
        """Refuse tensors that nobody checked."""
        left = self._known.keys() - self._checked
        left -= {"lm_head.weight"}  # some files repeat the tied embedding
        left = {name for name in left if not name.endswith("rotary_emb.inv_freq")}
        if left:
            raise Refusal(
                f"{self._folder}: tensor {min(left)!r} is not part of a Llama; is the config right?"
            )

    def read(self, name: str, bounds: Bounds, out: np.ndarray) -> None:
        """Copy the part of a tensor within `bounds` to `out`, band by band, in `out`'s dtype."""
        tensor = self._known[name]
        (first, last), *columns = bounds
        rows = max(1, _BAND // (_BYTES[tensor.dtype] * math.prod(tensor.shape[1:])))
        for start in range(first, last, rows):
            stop = min(start + rows, last)
            within = tuple(slice(*pair) for pair in ((start, stop), *columns))
            with _opened(tensor.path) as file:
                out[start - first : stop - first] = file.get_slice(name)[within]


def _read_header(path: Path) -> dict[str, _Tensor]:
    with _opened(path) as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no dict
        return {
            name: _Tensor(path, held.get_dtype(), tuple(held.get_shape()))
            for name, held in slices.items()
        }


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise Refusal(f"{path}: broken safetensors file ({error}); copy it again") from error
