"""What every kind of data shares: items, the train/held-out split and stable randomness."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

T = TypeVar("T")
Split = Literal["train", "heldout"]

HELDOUT_ONE_IN = 10
BLUE_VERSION = 1  # Raise it when families are dealt to the blue team otherwise.


@dataclass(frozen=True, slots=True)
class Item:
    """One instruction with its only right answer.

    `key` names the family and the canonical input. It does not depend on the paraphrase, so two
    wordings of one question are the same item and always fall into the same split. `said` is what
    the model that is trained on it answered before, where that was asked for. `reference` is what a
    right answer holds, where `answer` is a teacher's and may be wrong.
    """

    key: str
    family: str
    prompt: str
    answer: str
    said: str = ""
    reference: str = ""


def split_of(key: str) -> Split:
    """The split an item belongs to for good: one key in ten is held out, by hash."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return "heldout" if int.from_bytes(digest) % HELDOUT_ONE_IN == 0 else "train"


def generator(seed: int, *labels: str | int) -> np.random.Generator:
    """A random generator that depends on `seed` and `labels` only, the same on every machine."""
    digest = hashlib.blake2b(json.dumps([seed, *labels]).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest)))


def chosen(rng: np.random.Generator, count: int, part: float) -> np.ndarray:
    """A random choice of exactly `part` of `count` things, as bools [count]."""
    return rng.permutation(count) < round(part * count)


def dealt(rng: np.random.Generator, count: int, parts: Sequence[float]) -> np.ndarray:
    """A random choice of exactly each of `parts` of `count` things: int64 [count], the number of
    the part that each thing is in, or -1 for none.

    Args:
        rng: decides.
        count: how many things.
        parts: shares that add up to 1 at most.
    """
    order, ends = rng.permutation(count), np.round(np.cumsum(parts) * count).astype(int)
    found = np.searchsorted(ends, order, side="right")
    return np.where(found < len(ends), found, -1)


def blue_families(families: Collection[str], seed: int) -> frozenset[str]:
    """Which of some families the blue team alone trains on, by its seed: a half of them, rounded
    down, so none of a single one. The others are held out from it."""
    names = sorted(families)
    order = generator(seed, "blue families").permutation(len(names))
    return frozenset(names[place] for place in order[: len(names) // 2])


class Dice:
    """Cheap small draws from a numpy generator, which is slow when asked for one number a call."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._block: list[float] = []

    def below(self, stop: int) -> int:
        """A uniform integer in `[0, stop)`."""
        if not self._block:
            self._block = self._rng.random(4096).tolist()
        return int(self._block.pop() * stop)

    def pick(self, options: Sequence[T]) -> T:
        """One of `options`, uniformly."""
        return options[self.below(len(options))]

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different positions of `options`, in random order."""
        left = list(options)
        return [left.pop(self.below(len(left))) for _ in range(count)]
