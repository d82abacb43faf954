"""Tokenised conversations of phases: in memory, or on disk where there are many.

datasets/<fingerprint>/tokens/        every conversation's tokens, one after another (zarr, int32)
                spans/         first and one past last token of each completion (zarr, int32 [N, 2])
                manifest.json  SHA-256 of every file
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from jaxorg.data.tokenized import TokenizedDataset
from jaxorg.errors import Damaged
from jaxorg.storage.folder import (
    Folder,
    check_files,
    named,
    read_json,
    reading,
    sums_of,
    write_json,
    writing,
)
from jaxorg.storage.glance import glance
from jaxorg.storage.layout import ENTRIES, PoolShape

LARGE = 2**24  # tokens from which on a dataset lies on disk: 64 MiB
CHUNK_TOKENS = 2**14  # tokens that are read together
CACHE = 2**24  # bytes of chunks that stay in memory, of all datasets together
_MARGIN = 2**20  # bytes on the disk, for what is written around the arrays
_CONTEXT = ts.Context(
    {
        "cache_pool": {"total_bytes_limit": CACHE},
        "file_io_sync": False,  # whoever publishes a folder does that
    }
)


class StoredDataset:
    """N conversations on disk, 16 bytes of memory each; to batches it is as `TokenizedDataset`."""

    def __init__(self, place: Path, longest: int, pad_id: int):
        """`longest` is the number of tokens of the longest."""
        self._place = place
        with reading(place):
            self._tokens = _open(place / "tokens")
            self._spans = np.asarray(_open(place / "spans").read().result())
        self._first = np.cumsum(self.lengths, dtype=np.int64) - self.lengths
        self._longest, self._pad_id = longest, pad_id

    def __len__(self) -> int:
        return len(self._spans)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each conversation, int32 [N]."""
        return self._spans[:, 1]

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some rows' tokens and spans, as `TokenizedDataset.read` gives them.

        Args:
            rows: their numbers, int [rows], in any order.

        Raises:
            Damaged: the disk cannot give them back.
        """
        spans = self._spans[rows]
        lengths = spans[:, 1]
        moved = self._first[rows] - (np.cumsum(lengths) - lengths)
        places = np.repeat(moved, lengths) + np.arange(lengths.sum())
        tokens = np.full((len(rows), self._longest), self._pad_id, np.int32)
        inside = np.arange(self._longest)[None] < lengths[:, None]
        with reading(self._place):
            tokens[inside] = self._tokens[places].read().result()
        return tokens, spans


class DatasetCache:
    """The datasets of a results folder's phases. What is damaged is set aside and made anew."""

    def __init__(self, folder: Folder):
        self._folder, self._place = folder, folder.path / "datasets"
        self._whole: set[str] = set()  # that were checked

    def known(self, fingerprint: str) -> bool:
        """Whether a phase's conversations were tokenised as a whole before, unchecked."""
        there = os.path.lexists(self._place / fingerprint / "manifest.json")
        return there or glance(self._folder.path, fingerprint).state in ("done", "diverged")

    def keep(
        self, fingerprint: str, blocks: Iterator[TokenizedDataset], pad_id: int
    ) -> TokenizedDataset | StoredDataset:
        """A phase's dataset, made of `blocks` unless it is on disk; large ones go there."""
        if found := self._stored(fingerprint):
            return found
        held: list[TokenizedDataset] = []
        tokens = 0
        for block in blocks:
            held.append(block)
            tokens += block.tokens.size
            if tokens > LARGE:
                self._write(fingerprint, chain(_emptied(held), blocks), pad_id)
                self._whole.add(fingerprint)
                return self._opened(fingerprint)
        return TokenizedDataset.joined(held, pad_id)

    def drop_others(self, needed: Collection[str]) -> None:
        """Forget datasets of phases that are not to be trained any more."""
        for place in named(self._place, ENTRIES["datasets"]):
            if place.name not in needed:
                self._folder.remove(place)

    def look_again(self) -> None:
        """Forget which datasets were found to be whole: one turned out to be damaged."""
        self._whole.clear()

    def _stored(self, fingerprint: str) -> StoredDataset | None:
        place = self._place / fingerprint
        if not os.path.lexists(place):
            return None
        try:
            if fingerprint not in self._whole:
                check_files(place, read_json(place / "manifest.json", PoolShape)["sha256"])
                self._whole.add(fingerprint)
            return self._opened(fingerprint)
        except Damaged as problem:
            self._folder.set_aside(place, problem)
            return None

    def _opened(self, fingerprint: str) -> StoredDataset:
        place = self._place / fingerprint
        about = read_json(place / "manifest.json", PoolShape)
        return StoredDataset(place, about["longest"], about["pad_id"])

    def _write(self, fingerprint: str, blocks: Iterator[TokenizedDataset], pad_id: int) -> None:
        with self._folder.publishing(self._place / fingerprint) as beside:
            beside.mkdir()
            with writing():
                tokens, spans = _create(beside / "tokens", ()), _create(beside / "spans", (2,))
            rows = total = longest = 0
            for block in blocks:
                if shutil.disk_usage(beside).free < block.tokens.nbytes + _MARGIN:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                inside = np.arange(block.tokens.shape[1])[None] < block.lengths[:, None]
                with writing():
                    tokens = _append(tokens, total, block.tokens[inside])
                    spans = _append(spans, rows, block.spans)
                rows, total = rows + len(block), total + int(block.lengths.sum())
                longest = max(longest, int(block.lengths.max(initial=0)))
            about = {"longest": longest, "pad_id": pad_id, "sha256": sums_of(beside)}
            write_json(beside / "manifest.json", about)


def _emptied(held: list[TokenizedDataset]) -> Iterator[TokenizedDataset]:
    while held:
        yield held.pop(0)


def _create(place: Path, tail: tuple[int, ...]) -> Any:
    """An empty array of int32 that grows along its first axis."""
    return ts.open(
        _spec(place),
        context=_CONTEXT,
        create=True,
        dtype=ts.int32,
        shape=[0, *tail],
        chunk_layout=ts.ChunkLayout(chunk_shape=[CHUNK_TOKENS, *tail]),
    ).result()


def _open(place: Path) -> Any:
    return ts.open(_spec(place), context=_CONTEXT, open=True, read=True).result()


def _spec(place: Path) -> dict[str, Any]:
    codec = {"name": "zstd", "configuration": {"level": 1}}
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(place.resolve())},
        "metadata": {"codecs": [codec]},
    }


def _append(array: Any, at: int, values: np.ndarray) -> Any:
    """Write values behind the first `at`; the array with them."""
    shape = [at + len(values), *values.shape[1:]]
    array = array.resize(exclusive_max=shape, expand_only=True).result()
    array[at : at + len(values)].write(values).result()
    return array
