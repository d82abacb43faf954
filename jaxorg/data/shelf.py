"""Items whose texts lie in an unnamed file, so that millions of them take little memory."""

from __future__ import annotations

import hashlib
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from jaxorg.data.items import Item, Split, split_of

IN_MEMORY = 2**22  # bytes of texts that are not worth a file


class Shelf:
    """The different items of a file, in its order: 24 bytes of memory each, and their texts in a
    temporary file, which nobody else sees and which goes with the process."""

    def __init__(self, family: str, items: Iterable[tuple[str, str]]):
        """`items` are prompts and answers; of equal prompts, the first counts."""
        self._family = family
        self._texts = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - kept open
        self._bounds = array("q", [0])  # of prompt, answer, prompt, answer …
        held_out, digests = bytearray(), bytearray()
        for prompt, answer in items:
            held_out.append(split_of(self._key(prompt)) == "heldout")
            digests += hashlib.blake2b(prompt.encode(), digest_size=16).digest()
            for text in (prompt, answer):
                self._bounds.append(self._bounds[-1] + self._texts.write(text.encode()))
        first = _first(np.frombuffer(digests, np.uint64).reshape(-1, 2))
        held = np.frombuffer(held_out, np.bool_)[first]
        self._numbers: dict[Split, np.ndarray] = {"train": first[~held], "heldout": first[held]}

    def numbers(self, split: Split) -> np.ndarray:
        """The numbers of a split's items, int64."""
        return self._numbers[split]

    def __getitem__(self, number: int) -> Item:
        first, middle, last = self._bounds[2 * number : 2 * number + 3]
        self._texts.seek(first)
        prompt = self._texts.read(middle - first).decode()
        answer = self._texts.read(last - middle).decode()
        return Item(self._key(prompt), self._family, prompt, answer)

    def _key(self, prompt: str) -> str:
        return f"{self._family}:{prompt}"


def _first(digests: np.ndarray) -> np.ndarray:
    """The places of the different rows of [N, 2], each where it is first."""
    order = np.lexsort(digests.T)  # equal ones stay in their order
    ordered = digests[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    places: np.ndarray = np.sort(order[new])
    return places


@dataclass(frozen=True, eq=False)
class Picked(Sequence[Item]):
    """Some of a shelf's items, each read when it is asked for."""

    shelf: Shelf
    numbers: np.ndarray  # int64 [N]

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Item]: ...
    def __getitem__(self, at: int | slice) -> Item | Sequence[Item]:
        if isinstance(at, slice):
            return Picked(self.shelf, self.numbers[at])
        return self.shelf[int(self.numbers[at])]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]

    __hash__ = None  # type: ignore[assignment]
