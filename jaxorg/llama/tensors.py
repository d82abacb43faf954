"""The tensors in a folder's safetensors files, read by name and part by part."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - teaches numpy, and so safetensors, bfloat16
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxorg.errors import Refusal, short
from jaxorg.llama import files
from jaxorg.storage.weight_reader import Bounds

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"

_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}  # others belong to quantised models
_BAND = 2**26  # bytes of a file that are read at a time
_BESIDE = re.compile(r"[^/\\\0]+\.safetensors")
_PART = re.compile(r"model-\d+-of-\d+\.safetensors", re.ASCII)
_HEADLESS = ("embed_tokens.", "layers.", "norm.")  # how names begin in a model without its head
_BUFFER = "rotary_emb.inv_freq"
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold the folder's model: those that its index names, or else
    model.safetensors, or else its numbered parts, or else all.

    Raises:
        Refusal: one of them is not there, no regular file, or a link out of the folder; the index
            is broken; or there are pickles alone.
    """
    index = files.find(folder, INDEX)
    present = _present(folder)
    names = _indexed(index) if index else _meant(present)
    if index and WHOLE in set(present) - set(names):
        raise Refusal(f"{folder}: holds {WHOLE} and {INDEX}, which names others; remove one")
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


def passed_over(folder: Path) -> list[str]:
    """The names of the folder's safetensors files that do not belong to its model."""
    read = {path.name for path in weight_files(folder)}
    return [name for name in _present(folder) if _BESIDE.fullmatch(name) and name not in read]


def _present(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


def _meant(present: Sequence[str]) -> list[str]:
    """Of the files in a folder without an index, those that hold its model."""
    if WHOLE in present:
        return [WHOLE]
    parts = [name for name in present if _PART.fullmatch(name)]
    return parts or [name for name in present if _BESIDE.fullmatch(name)]


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
class Tensor:
    """What a file's header says of a tensor."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]


class Tensors:
    """Tensors in files, by name. No file stays open: of a file that does, what was read would count
    as memory of this process."""

    def __init__(self, place: Path, known: Mapping[str, Tensor]):
        """`place` is what messages name."""
        self.place, self._known = place, dict(known)
        self._checked: set[str] = set()

    @classmethod
    def of_model(cls, folder: Path) -> Tensors:
        """The tensors of a folder, by the names that they have in a model with its head, which
        begin with `model.`.

        Raises:
            Refusal: files are broken, hold a tensor twice or mix two ways to name them, or there is
                none.
        """
        known: dict[str, Tensor] = {}
        for path in weight_files(folder):
            held = read_header(path)
            if twice := known.keys() & held.keys():
                raise Refusal(
                    f"{path}: tensor {min(twice)!r} stands in another file, too; keep one"
                )
            known |= held
        if not known:
            raise Refusal(f"{folder}: holds no safetensors file with weights; add them")
        return cls(folder, _prefixed(known, folder))

    def tie(self, shape: tuple[int, int]) -> None:
        """Make one of embedding and head, both of `shape`: the head is the embedding where that is
        missing, and must equal it otherwise.

        Raises:
            Refusal: they differ, so that one must guess what is meant (Transformers 4 takes the
                embedding for both, Transformers 5 each).
        """
        if HEAD not in self._known:
            return
        self.check(HEAD, shape)
        if EMBEDDING in self._known:
            self.check(EMBEDDING, shape)
            self._refuse_difference(shape)
        self._known.setdefault(EMBEDDING, self._known[HEAD])

    def _refuse_difference(self, shape: tuple[int, int]) -> None:
        rows, width = shape
        step = max(1, _BAND // (4 * width))
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            one, other = np.empty((2, stop - start, width), np.float32)
            for name, part in ((EMBEDDING, one), (HEAD, other)):
                self.read(name, ((start, stop), (0, width)), part)
            if not np.array_equal(one, other, equal_nan=True):
                raise Refusal(
                    f"{self.place}: tensor {HEAD!r} differs from {EMBEDDING!r}, but the "
                    f"config's tie_word_embeddings is true; set it to false"
                )

    def check(self, name: str, shape: tuple[int, ...]) -> None:
        """Note that a tensor is known.

        Raises:
            Refusal: it is missing, no float or not of `shape`.
        """
        tensor = self._known.get(name)
        if tensor is None:
            raise Refusal(f"{self.place}: tensor {name!r} is missing; is the folder complete?")
        if tensor.dtype not in _BYTES:
            raise Refusal(
                f"{self.place}: tensor {name!r} is {tensor.dtype}; known are {', '.join(_BYTES)}"
            )
        if tensor.shape != shape:
            raise Refusal(
                f"{self.place}: tensor {name!r} has shape {tensor.shape}, but config.json "
                f"asks for {shape}; the files do not belong together"
            )
        self._checked.add(name)

    def refuse_strangers(self) -> None:
        """Make sure that every tensor was checked.

        Raises:
            Refusal: one was not, so that the model would be another one than the file's.
        """
        if left := self._known.keys() - self._checked:
            raise Refusal(
                f"{self.place}: tensor {min(left)!r} is not part of a Llama; is the config right?"
            )

    def read(self, name: str, bounds: Bounds, out: np.ndarray) -> None:
        """Copy a part of a tensor, band by band.

        Args:
            name: the tensor's, in a model with its head.
            bounds: the part: first and one past last of each axis.
            out: takes it, in its own dtype; its shape is that of the part.
        """
        tensor = self._known[name]
        (first, last), *columns = bounds
        rows = max(1, _BAND // (_BYTES[tensor.dtype] * math.prod(tensor.shape[1:])))
        for start in range(first, last, rows):
            stop = min(start + rows, last)
            within = tuple(slice(*pair) for pair in ((start, stop), *columns))
            with _opened(tensor.path) as file:
                out[start - first : stop - first] = file.get_slice(tensor.name)[within]


def _prefixed(known: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Tensors by the names that they have in a model with its head."""
    headless = [name for name in known if name.startswith(_HEADLESS)]
    others = [name for name in known if name.startswith("model.")]
    if headless and others:
        raise Refusal(
            f"{folder}: tensor {min(headless)!r} stands beside {min(others)!r}; either all names "
            f"begin with 'model.' or none does"
        )
    return {f"model.{name}" if name in headless else name: known[name] for name in known}


def read_header(path: Path) -> dict[str, Tensor]:
    """What a file holds, but for buffers, which follow from the config."""
    with _opened(path) as file:
        names = [name for name in file.keys() if not name.endswith(_BUFFER)]  # noqa: SIM118 - no dict
        slices = {name: file.get_slice(name) for name in names}
        return {
            name: Tensor(path, name, held.get_dtype(), tuple(held.get_shape()))
            for name, held in slices.items()
        }


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise Refusal(f"{path}: broken safetensors file ({error}); copy it again") from error
