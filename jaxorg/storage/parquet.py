"""Rows of parquet files of others, in bounded memory.

A few hundred bytes may promise gigabytes: pages of zeros, one long text for every row, a list with
a billion empty places. So the headers of all pages that will be read are looked at before any is
unpacked; the footer's own sums are not believed. Texts that are written once are kept once, and a
record's length is known before it is made.
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jaxorg.storage import thrift

LARGEST_FOOTER = 2**23  # bytes
MOST_PAGES = 100_000
# What a row group's columns may unfold to: so many bytes, and so many for each that is stored.
UNFOLDS = 2**26
RATIO = 100
_MOST_PARTS = 2**21, 1000  # of a footer, of a page's header
_A_VALUE = 16  # bytes that a value takes besides its text: its place in lists and dictionaries
_AN_OBJECT = 64  # bytes, or more, of an element as a Python object
_BATCH = 1024  # rows
_FIXED = "FIXED_LEN_BYTE_ARRAY"  # a physical type
_DICTIONARY = 2  # a kind of page
_VALUES = {0: (5, 2), 3: (8, 4)}  # kinds with values: field of their own header, and its encoding
_DELTA_BYTE_ARRAY = 7  # an encoding: each text by how much of the one before it repeats


class ParquetError(ValueError):
    """A file that is damaged, or would unfold to too much."""


def rows(
    path: Path, choose: Callable[[Sequence[str]], Sequence[str]], most: int, longest: int
) -> Iterator[dict[str, Any]]:
    """The rows of a file.

    Args:
        path: the file.
        choose: which of its columns to read, of the names that it has.
        most: rows.
        longest: bytes of a row.

    Raises:
        ParquetError: it would take too much, or its headers do not fit together.
        pa.ArrowException, OSError: pyarrow cannot read it.
    """
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        groups = _row_groups(data)
        with pq.ParquetFile(path) as file:
            leaves = list(map(file.schema.column, range(file.metadata.num_columns)))
            columns = list(choose(file.schema_arrow.names))
        if file.metadata.num_rows > most:
            raise ParquetError(f"it promises {file.metadata.num_rows:,} rows")
        again = _check(data, groups, leaves, columns)
    with pq.ParquetFile(path, read_dictionary=again, pre_buffer=False) as file:
        for batch in file.iter_batches(_BATCH, columns=columns, use_threads=False):
            yield from _unfolded(batch, longest)


def _check(
    data: mmap.mmap,
    groups: Sequence[Sequence[thrift.Struct]],
    leaves: Sequence[pq.ColumnSchema],
    columns: Sequence[str],
) -> list[str]:
    """See, by the headers of their pages, that columns do not unfold to too much.

    Args:
        data: the file's.
        groups: what its footer says of the leaves, by row group.
        leaves: the columns that hold values, those of its structs and lists included.
        columns: names of the columns that will be read.

    Returns:
        The leaves of these columns whose texts are written once and used again.

    Raises:
        ParquetError: they do, or the headers do not fit together.
    """
    for name, count in Counter(leaf.path for leaf in leaves).items():
        if count > 1:
            raise ParquetError(f"column {name!r} stands {count} times")
    wanted = {number: leaf.path for number, leaf in enumerate(leaves) if _is_in(leaf.path, columns)}
    for number, name in wanted.items():
        if leaves[number].physical_type == _FIXED:
            raise ParquetError(f"column {name!r} holds no text")
    again: set[str] = set()
    left = MOST_PAGES
    for group in groups:
        if len(group) != len(leaves):
            raise ParquetError("its footer is damaged")
        stored = unfolds = 0
        for number, name in wanted.items():
            for page in _pages(data, group[number], name):
                stored, unfolds, left = stored + page.stored, unfolds + page.unfolds, left - 1
                if page.kind == _DICTIONARY:
                    again.add(name)
                if left < 0:
                    raise ParquetError(f"it has more than {MOST_PAGES:,} pages")
        if unfolds > UNFOLDS + RATIO * stored:
            raise ParquetError(f"its {stored:,} bytes would unfold to {unfolds:,} or more")
    return sorted(again)


@dataclass(frozen=True)
class _Page:
    """What the header of a page says."""

    kind: int
    stored: int  # bytes in the file
    values: int
    unfolds: int  # bytes in memory, a text that is used again counted once


def _is_in(leaf: str, columns: Sequence[str]) -> bool:
    return any(f"{leaf}.".startswith(f"{column}.") for column in columns)


def _row_groups(data: mmap.mmap) -> list[list[thrift.Struct]]:
    """What the footer says of the columns in each row group.

    Not pyarrow's own `ColumnChunkMetaData`, which ends the process over some damaged footers.
    """
    length, magic = int.from_bytes(data[-8:-4], "little"), data[-4:]
    if magic != b"PAR1":
        raise ParquetError("it does not end as a parquet file does")
    if length > min(LARGEST_FOOTER, len(data) - 8):
        raise ParquetError(f"its footer is larger than {LARGEST_FOOTER:,} bytes, or than the file")
    footer, _ = thrift.read(data[-8 - length : -8], 0, _MOST_PARTS[0])
    groups = footer.get(4)
    try:
        return [[chunk[3] for chunk in group[1]] for group in groups]  # type: ignore[union-attr]
    except (TypeError, KeyError):
        raise ParquetError("its footer is damaged") from None


def _pages(data: mmap.mmap, chunk: thrift.Struct, name: str) -> Iterator[_Page]:
    """The pages of a column in a row group, which must fill its place in the file."""
    values, size, first = (_count(chunk.get(field), 2**63) for field in (5, 7, 9))
    if not values:
        return
    begins = {at := min(first, _count(chunk.get(11, first), 2**63) or first)}
    end = at + size
    while at < end <= len(data):
        header, at = thrift.read(data, at, _MOST_PARTS[1])
        page = _page(header)
        at, values = at + page.stored, values - page.values
        begins.add(at)
        yield page
    if at != end or values or first not in begins:
        raise ParquetError(f"the pages of column {name!r} do not fit together")


def _page(header: thrift.Struct) -> _Page:
    kind = _count(header.get(1))
    values = 0
    if kind in _VALUES:  # else a dictionary, or what is passed over
        place, encoding = _VALUES[kind]
        own = header.get(place)
        if not isinstance(own, dict):
            raise ParquetError("a header is damaged")
        values = _count(own.get(1))
        if own.get(encoding) == _DELTA_BYTE_ARRAY:
            raise ParquetError("it has texts in the encoding DELTA_BYTE_ARRAY; write it with PLAIN")
    return _Page(kind, _count(header.get(3)), values, _count(header.get(2)) + values * _A_VALUE)


def _count(number: object, below: int = 2**31) -> int:
    """A number that all readers take for the same."""
    if type(number) is not int or not 0 <= number < below:
        raise ParquetError("a header is damaged")
    return number


def _unfolded(batch: pa.RecordBatch, longest: int) -> Iterator[dict[str, Any]]:
    """The rows of a batch, made in parts of about `longest` bytes."""
    if sum(_weight(column) for column in batch.columns) <= longest:
        yield from batch.to_pylist()
    elif batch.num_rows == 1:
        raise ParquetError(f"it has a record of more than {longest:,} bytes")
    else:
        half = batch.num_rows // 2
        yield from _unfolded(batch.slice(0, half), longest)
        yield from _unfolded(batch.slice(half), longest)


def _weight(array: pa.Array) -> int:
    """About how many bytes an array takes as Python objects."""
    kind, own = array.type, len(array) * _AN_OBJECT
    if pa.types.is_struct(kind):
        return own + sum(map(_weight, array.flatten()))
    if pa.types.is_nested(kind):
        return own + _weight(array.flatten())
    if pa.types.is_dictionary(kind) and len(array):
        lengths = pc.binary_length(array.dictionary).take(array.indices)
        return own + int(pc.sum(lengths).as_py() or 0)
    return own + int(array.nbytes)
