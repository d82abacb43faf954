"""Packing: several whole conversations one after another in a row, so that little is padding."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from jaxorg.data.items import generator
from jaxorg.data.tokenized import Rows

OPEN = 256  # rows that may still take a conversation


class Conversations(Rows, Protocol):
    """Conversations to pack: `read` gives their tokens [n, W] and spans [n, 2]."""

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each conversation [N]."""


class Packed:
    """Rows of `length` tokens, each of whole conversations of a dataset; which ones stand together
    depends on the dataset and `seed` only."""

    def __init__(self, dataset: Conversations, length: int, seed: int):
        """No conversation is longer than `length`."""
        self._dataset, self._length = dataset, length
        order = generator(seed, "packing").permutation(len(dataset))
        rows = first_fit(dataset.lengths[order], length)
        by_row = np.argsort(rows, kind="stable")
        self._members = order[by_row]  # conversations, row by row
        self._bounds = np.searchsorted(rows[by_row], np.arange(rows.max(initial=-1) + 2))

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Tokens, segments, positions and whether they count, as in `engine.batch.PackedBatch`.

        Args:
            rows: numbers of packed rows, int [rows].

        Returns:
            int32 thrice and bool, [rows, length] each.
        """
        members = [self._members[self._bounds[row] : self._bounds[row + 1]] for row in rows]
        tokens, spans = self._dataset.read(np.concatenate(members))  # [n, W], [n, 2]
        lengths = spans[:, 1]
        ends = [np.cumsum(part) for part in np.split(lengths, np.cumsum([*map(len, members)])[:-1])]
        offsets = np.concatenate(ends) - lengths  # where each conversation begins in its row

        def spread(values: np.ndarray) -> np.ndarray:
            """One value a conversation, for each of its tokens."""
            return np.repeat(values, lengths)

        source = spread(np.arange(len(lengths)))
        position = np.arange(lengths.sum()) - spread(np.cumsum(lengths) - lengths)
        place = (
            spread(np.repeat(np.arange(len(rows)), [*map(len, members)])),
            spread(offsets) + position,
        )
        shape = (len(rows), self._length)
        packed, segments, positions = (np.zeros(shape, np.int32) for _ in range(3))
        completion = np.zeros(shape, np.bool_)
        packed[place] = tokens[source, position]
        segments[place] = spread(np.concatenate([np.arange(len(part)) + 1 for part in members]))
        positions[place] = position
        # The first token of a conversation comes after nothing that could predict it.
        completion[place] = position >= spread(np.maximum(spans[:, 0], 1))
        return packed, segments, positions, completion


def first_fit(sizes: np.ndarray, room: int) -> np.ndarray:
    """The row that each thing goes to, one after another: the first that has room left. Of more
    than OPEN rows, the fullest takes no more.

    Args:
        sizes: of the things, in tokens, int [N].
        room: of a row, in tokens; no thing is larger.

    Returns:
        int64 [N], rows counted from 0.
    """
    left, names = (np.full(OPEN, fill) for fill in (0, -1))  # of open rows, the oldest first
    chosen = np.empty(len(sizes), np.int64)
    rows = 0
    for number, size in enumerate(sizes.tolist()):
        place = int(np.argmax(left >= size))
        if left[place] < size:
            fullest = int(np.argmin(left))
            for kept, new in ((left, room), (names, rows)):
                kept[fullest:-1] = kept[fullest + 1 :]
                kept[-1] = new
            place, rows = -1, rows + 1
        left[place] -= size
        chosen[number] = names[place]
    return chosen
