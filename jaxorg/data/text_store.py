"""Items whose texts lie in an unnamed file, so that millions of them take little memory."""

from __future__ import annotations

import hashlib
import tempfile
from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np

from jaxorg.data.items import Item, Split, split_of
from jaxorg.data.matching import normalised

IN_MEMORY = 2**22  # bytes of texts that are not worth a file


class Entry(NamedTuple):
    """A prompt and its answer, and where they stand."""

    file: int
    number: int  # of the record
    prompt: str
    answer: str


class TextStore:
    """The different items of some files, in their order: 36 bytes of memory each, and their texts
    in a temporary file, which nobody else sees and which goes with the process.

    Prompts are the same if they are once they are normalised; of such, the first counts.
    """

    def __init__(self, families: Sequence[str], entries: Iterable[Entry]):
        """`families` are those of the files."""
        self._families = families
        self._texts = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - kept open
        self._bounds = array("q", [0])  # of prompt, answer, prompt, answer …
        self._files, self._places = array("i"), array("q")
        held_out, prompts, answers = bytearray(), bytearray(), bytearray()
        for entry in entries:
            key = normalised(entry.prompt)
            held_out.append(split_of(key) == "heldout")
            prompts += _digest(key)
            answers += _digest(entry.answer)
            self._files.append(entry.file)
            self._places.append(entry.number)
            for text in (entry.prompt, entry.answer):
                self._bounds.append(self._bounds[-1] + self._texts.write(text.encode()))
        first = _first(np.frombuffer(prompts, np.uint64).reshape(-1, 2))
        said = np.frombuffer(answers, np.uint64).reshape(-1, 2)
        self._kept = np.flatnonzero(first == np.arange(len(first)))
        held = np.frombuffer(held_out, np.bool_)[self._kept]
        self._numbers: dict[Split, np.ndarray] = {
            "train": self._kept[~held],
            "heldout": self._kept[held],
        }
        self.repeated = len(first) - len(self._kept)
        self.contradicted = int((said != said[first]).any(axis=1).sum())  # of the repeated ones

    def __len__(self) -> int:
        return len(self._kept)

    def numbers(self, split: Split, families: Collection[str] = ()) -> np.ndarray:
        """The numbers of a split's items, int64: of some families, or of all for none."""
        numbers = self._numbers[split]
        if not families:
            return numbers
        files = [n for n, family in enumerate(self._families) if family in families]
        own: np.ndarray = numbers[np.isin(np.frombuffer(self._files, np.intc)[numbers], files)]
        return own

    def numbered(self) -> Iterator[tuple[int, Item]]:
        """All items with their numbers, in order."""
        return ((number, self[number]) for number in self._kept.tolist())

    def place(self, number: int) -> tuple[int, int]:
        """The file and the record that an item is from."""
        return self._files[number], self._places[number]

    def __getitem__(self, number: int) -> Item:
        first, middle, last = self._bounds[2 * number : 2 * number + 3]
        self._texts.seek(first)
        prompt = self._texts.read(middle - first).decode()
        answer = self._texts.read(last - middle).decode()
        return Item(normalised(prompt), self._families[self._files[number]], prompt, answer)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _first(digests: np.ndarray) -> np.ndarray:
    """For each row of [N, 2], the place where an equal one is first."""
    order = np.lexsort(digests.T)  # equal ones stay in their order
    ordered = digests[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    places = np.empty(len(order), np.int64)
    places[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
    return places


@dataclass(frozen=True, eq=False)
class Picked(Sequence[Item]):
    """Some of a text_store's items, each read when it is asked for."""

    text_store: TextStore
    numbers: np.ndarray  # int64 [N]

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, at: int) -> Item: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[Item]: ...
    def __getitem__(self, at: int | slice) -> Item | Sequence[Item]:
        if isinstance(at, slice):
            return Picked(self.text_store, self.numbers[at])
        return self.text_store[int(self.numbers[at])]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and [*self] == [*other]

    __hash__ = None  # type: ignore[assignment]
