"""What a GGUF file says before its weights: settings, and the place of each tensor.

The format is that of llama.cpp (github.com/ggml-org/ggml, docs/gguf.md), versions 2 and 3, little
endian. The package `gguf` reads it, too, but makes several arrays of each list element and bounds
nothing; a file comes from anywhere.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

from jaxorg.errors import Refusal, short

_MAGIC = b"GGUF"
_SCALARS = tuple("BbHhIif?__Qqd")  # struct's codes by GGUF's numbers
_STRING, _ARRAY = 8, 9
_MOST_SETTINGS = 2**12
_MOST_TENSORS = 2**16
_MOST_ELEMENTS = 2**22  # of a list; the largest vocabularies have 2**18 tokens
_LONGEST_NAME = 2**10  # bytes of a setting's or a tensor's name
_LONGEST_TEXT = 2**20  # bytes of any other text; a chat template is the longest
_MOST_TEXT = 2**26  # bytes of settings altogether
_LARGEST_SIDE = 2**31
_LARGEST_ALIGNMENT = 2**16


class Place(NamedTuple):
    """Where a tensor stands in the file."""

    shape: tuple[int, ...]  # as numpy has it, the last axis being contiguous
    kind: int  # how its numbers are stored, by GGML's number
    offset: int  # bytes from the start of the file


@dataclass(frozen=True)
class Header:
    """A file's settings by their full names, and its tensors by theirs."""

    path: Path
    settings: Mapping[str, Any]
    tensors: Mapping[str, Place]


def read_header(path: Path) -> Header:
    """Read what stands before the weights.

    Raises:
        Refusal: it is no GGUF file, of another version, cut short or too large to be one.
    """
    try:
        with path.open("rb") as file:
            return _Reader(path, file).header()
    except OSError as error:
        raise Refusal(f"{path}: cannot be read ({error.strerror}); copy it again") from error


class _Reader:
    def __init__(self, path: Path, file: BinaryIO):
        self._path, self._file = path, file
        self._left = _MOST_TEXT

    def header(self) -> Header:
        if self._file.read(4) != _MAGIC:
            self._refuse("is no GGUF file; give one, or a Hugging Face folder")
        version = self._scalar("I")
        if version not in (2, 3):
            self._refuse(f"is of GGUF version {version}; 2 and 3, little endian, are supported")
        tensors = self._count("tensors", _MOST_TENSORS)
        settings: dict[str, Any] = {}
        for _ in range(self._count("settings", _MOST_SETTINGS)):
            name = self._text(_LONGEST_NAME)
            if name in settings:
                self._refuse(f"has {short(name)} twice; copy it again")
            settings[name] = self._value(self._scalar("I"))
        found: dict[str, Place] = {}
        for _ in range(tensors):
            name = self._text(_LONGEST_NAME)
            if name in found:
                self._refuse(f"has the tensor {short(name)} twice; copy it again")
            found[name] = self._place(name)
        start = self._file.tell()
        alignment = settings.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= _LARGEST_ALIGNMENT:
            self._refuse(f"general.alignment is {short(alignment)}; copy it again")
        start += -start % alignment
        moved = {name: at._replace(offset=start + at.offset) for name, at in found.items()}
        return Header(self._path, settings, moved)

    def _place(self, name: str) -> Place:
        sides = self._scalar("I")
        if not 1 <= sides <= 4:
            self._refuse(f"the tensor {short(name)} has {sides} axes; copy it again")
        shape = tuple(self._scalar("Q") for _ in range(sides))[::-1]
        if not all(1 <= side <= _LARGEST_SIDE for side in shape):
            self._refuse(f"the tensor {short(name)} has the shape {shape}; copy it again")
        kind, offset = self._scalar("I"), self._scalar("Q")
        return Place(shape, kind, offset)

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._text(_LONGEST_TEXT)
        if kind != _ARRAY:
            return self._scalar(self._code(kind))
        inner, count = self._scalar("I"), self._count("elements of a list", _MOST_ELEMENTS)
        if inner == _STRING:
            return [self._text(_LONGEST_TEXT) for _ in range(count)]
        form = f"<{count}{self._code(inner)}"
        return list(struct.unpack(form, self._bytes(struct.calcsize(form))))

    def _code(self, kind: int) -> str:
        if kind >= len(_SCALARS) or kind in (_STRING, _ARRAY):
            self._refuse(f"has a setting of kind {kind}, which is unknown; copy it again")
        return _SCALARS[kind]

    def _count(self, what: str, most: int) -> int:
        count: int = self._scalar("Q")
        if count > most:
            self._refuse(f"has {count:,} {what}, {most:,} at most are supported")
        return count

    def _scalar(self, code: str) -> Any:
        form = f"<{code}"
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _text(self, longest: int) -> str:
        length = self._count("bytes in a text", longest)
        try:
            return self._bytes(length).decode()
        except UnicodeDecodeError:
            self._refuse("has a text that is none; copy it again")

    def _bytes(self, length: int) -> bytes:
        self._left -= length
        if self._left < 0:
            self._refuse(f"has settings of more than {_MOST_TEXT:,} bytes")
        found = self._file.read(length)
        if len(found) < length:
            self._refuse("ends in the middle; copy it again")
        return found

    def _refuse(self, problem: str) -> NoReturn:
        raise Refusal(f"{self._path}: {problem}")
