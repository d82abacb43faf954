"""Reads structs of Thrift's compact protocol: parquet's footer, and the headers of its pages.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from __future__ import annotations

from collections.abc import Callable
from mmap import mmap
from typing import Any

_MOST_BYTES = 10  # of a number

Struct = dict[int, Any]  # by a field's number: an int, a bool, a list, a Struct; None for a text


class ThriftError(ValueError):
    """Bytes that are no struct, or one that is too large."""


def read(data: bytes | mmap, at: int, most: int) -> tuple[Struct, int]:
    """The struct that begins at a place of `data`, and where it ends.

    Raises:
        ThriftError: there is none, or one of more than `most` fields and elements, those of structs
            within it included.
    """
    reader = _Reader(data, at, most)
    try:
        return reader.struct(), reader.at
    except (IndexError, RecursionError):
        raise ThriftError("a header is cut off or nested too deeply") from None


class _Reader:
    def __init__(self, data: bytes | mmap, at: int, most: int):
        self._data, self.at, self._left = data, at, most
        self._read: dict[int, Callable[[], Any]] = {
            1: lambda: True,
            2: lambda: False,
            3: self._byte,
            4: self._number,
            5: self._number,
            6: self._number,
            7: lambda: self._pass_over(8),
            8: lambda: self._pass_over(self._varint()),
            9: self._list,
            10: self._list,
            11: self._map,
            12: self.struct,
            13: lambda: self._pass_over(16),
        }

    def struct(self) -> Struct:
        """Fields up to the stop; each may stand once, or readers could differ in which counts."""
        fields: Struct = {}
        number = 0
        while header := self._byte():
            number = number + (header >> 4) if header >> 4 else self._number()
            if number in fields:
                raise ThriftError("a header says something twice")
            fields[number] = self._value(header & 15)
        return fields

    def _value(self, kind: int) -> Any:
        self._left -= 1
        if kind not in self._read or self._left < 0:
            raise ThriftError("a header is damaged or too large")
        return self._read[kind]()

    def _list(self) -> list[Any]:
        header = self._byte()
        count = header >> 4 if header >> 4 < 15 else self._varint()
        return [self._element(header & 15) for _ in range(count)]

    def _map(self) -> list[tuple[Any, Any]]:
        count = self._varint()
        kinds = self._byte() if count else 0
        return [(self._element(kinds >> 4), self._element(kinds & 15)) for _ in range(count)]

    def _element(self, kind: int) -> Any:
        """An element of a list, where a bool is a byte and not part of a header."""
        return self._value(3 if kind in (1, 2) else kind)

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _pass_over(self, count: int) -> None:
        self.at += count

    def _varint(self) -> int:
        number = 0
        for place in range(_MOST_BYTES):
            byte = self._byte()
            number |= (byte & 127) << 7 * place
            if byte < 128:
                return number
        raise ThriftError("a header holds a number that is too large")

    def _number(self) -> int:
        zigzag = self._varint()
        return (zigzag >> 1) ^ -(zigzag & 1)
