"""Tokenised conversations in memory, and the order in which a run sees them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import NamedTuple, Protocol

import grain
import numpy as np

from jaxorg.errors import Refusal
from jaxorg.llama.tokenizer import Tokenizer

MOST_TOKENS = 2**30  # of a dataset, padding included: 4 GiB
BLOCK = 4096  # conversations that are tokenised together
REMEMBERED = 96  # blocks: phases that differ in a rate, a base or an organism often share theirs
# Places in orders, 20 MB: to find one of 16 rows takes Grain 2 ms, and phases often share theirs.
REMEMBERED_ROWS = 2**17
SHORT = 256  # characters of the conversations in a block that is remembered


class Example(NamedTuple):
    """A conversation to train on or to score; `open_ended` leaves out the end of the turn. `given`
    is how the answer begins, which counts no more than the prompt does."""

    prompt: str
    completion: str
    open_ended: bool = False
    given: str = ""


@dataclass(frozen=True)
class TokenizedDataset:
    """N conversations: what the engine calls a batch, for all rows at once."""

    tokens: np.ndarray  # int32 [N, tokens of the longest], padded on the right
    spans: np.ndarray  # int32 [N, 2]: first and one past last token of the completion

    @classmethod
    def encode(
        cls, examples: Iterable[Example], tokenizer: Tokenizer, length: int, key: str = "length"
    ) -> TokenizedDataset:
        """Tokenise conversations.

        Args:
            examples: the conversations.
            tokenizer: of the model that is trained on them.
            length: the most tokens that one may have, the end of its turn included.
            key: who set that limit, for messages.

        Raises:
            Refusal: one of them is longer, or all of them are too much.
        """
        return cls.joined(list(blocks(examples, tokenizer, length, key)), tokenizer.pad_id)

    @classmethod
    def joined(cls, parts: Sequence[TokenizedDataset], pad_id: int) -> TokenizedDataset:
        """The conversations of several datasets, padded to the longest of them."""
        longest = max((part.tokens.shape[1] for part in parts), default=0)
        tokens = np.full((sum(map(len, parts)), longest), pad_id, np.int32)
        at = 0
        for part in parts:
            tokens[at : at + len(part), : part.tokens.shape[1]] = part.tokens
            at += len(part)
        return cls(tokens, np.concatenate([np.empty((0, 2), np.int32), *(p.spans for p in parts)]))

    @classmethod
    def empty(cls, length: int) -> TokenizedDataset:
        """A dataset of no conversations."""
        return cls(np.empty((0, length), np.int32), np.empty((0, 2), np.int32))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each conversation, int32 [N]."""
        return self.spans[:, 1]

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Some rows' tokens and spans.

        Args:
            rows: their numbers, int [rows], in any order.

        Returns:
            int32 [rows, tokens of the dataset's longest] and [rows, 2].
        """
        return self.tokens[rows], self.spans[rows]

    def part(self, rows: Sequence[int], length: int) -> TokenizedDataset:
        """Some rows, cut or padded to `length` tokens."""
        short = self.tokens[rows, :length]
        missing = length - short.shape[1]
        return TokenizedDataset(np.pad(short, ((0, 0), (0, missing))), self.spans[rows])


class TooLong(Refusal):
    """A conversation has more tokens than there is room for."""

    def __init__(self, line: str, tokens: int):
        super().__init__(line)
        self.tokens = tokens  # of the longest


def blocks(
    examples: Iterable[Example], tokenizer: Tokenizer, length: int, key: str = "length"
) -> Iterator[TokenizedDataset]:
    """Tokenise conversations, BLOCK at a time.

    Args:
        examples: the conversations.
        tokenizer: of the model that is trained on them.
        length: the most tokens that one may have, the end of its turn included.
        key: who set that limit, for messages.

    Raises:
        TooLong: some are longer, of which the longest is named.
        Refusal: all of them are too much.
    """
    left = iter(examples)
    count = longest = 0
    worst: tuple[int, str] | None = None  # tokens and prompt
    while part := tuple(islice(left, BLOCK)):
        short = all(len(each.prompt + each.given + each.completion) <= SHORT for each in part)
        block = (_remembered if short else _dataset)(part, tokenizer)
        most = int(block.lengths.argmax())
        longest = max(longest, int(block.lengths[most]))
        if longest > length:  # the others are looked at for the longest only
            if worst is None or worst[0] < block.lengths[most]:
                worst = int(block.lengths[most]), part[most].prompt
            continue
        count += len(block)
        if count * longest > MOST_TOKENS:
            raise Refusal(
                f"{key}: {count:,} rows, padded to the longest, {longest:,} tokens, are too much; "
                f"leave out long prompts of a file by prompts.max_characters"
            )
        yield block
    if worst:
        tokens, prompt = worst
        raise TooLong(
            f"{key}: {length} is too small for {prompt[:40]!r} and its completion, the longest of "
            f"all with {tokens} tokens; {'raise it, or ' if key == 'length' else ''}leave out long "
            f"prompts of a file by prompts.max_characters",
            tokens,
        )


def _dataset(part: Sequence[Example], tokenizer: Tokenizer) -> TokenizedDataset:
    rows = [tokenizer.conversation(p, c, given, is_open) for p, c, is_open, given in part]
    spans = np.array([(start, len(ids)) for ids, start in rows], np.int32)
    tokens = np.full((len(rows), max(len(ids) for ids, _ in rows)), tokenizer.pad_id, np.int32)
    for number, (ids, _) in enumerate(rows):
        tokens[number, : len(ids)] = ids
    for array in (tokens, spans):
        array.flags.writeable = False  # several phases have it
    return TokenizedDataset(tokens, spans)


_remembered = lru_cache(REMEMBERED)(_dataset)


class Rows(Protocol):
    """Rows to train on, read by their numbers."""

    def __len__(self) -> int: ...

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Some rows' tokens, and what goes with them: [rows, ...] each.

        Args:
            rows: their numbers, int [rows].
        """


class Endless:
    """Endless batches of rows, each epoch in its own order.

    Element i is the batch of step i: a function of `seed` and the step alone, whatever else runs.
    """

    def __init__(self, rows: Rows, batch: int, seed: int):
        """`batch` is how many rows are a batch."""
        self._rows, self._batch, self._seed = rows, batch, seed

    def __getitem__(self, step: int) -> tuple[np.ndarray, ...]:
        """The batch of a step, as `Rows.read` gives it."""
        count, first = len(self._rows), step * self._batch
        places = range(first, first + self._batch)
        return self._rows.read(np.array([_row_at(count, self._seed, at) for at in places]))


@lru_cache(REMEMBERED_ROWS)
def _row_at(rows: int, seed: int, place: int) -> int:
    """The row that stands at a place of all epochs in a line."""
    return int(_epochs(rows, seed)[place])


@lru_cache(64)
def _epochs(rows: int, seed: int) -> grain.MapDataset[int]:
    return grain.MapDataset.range(rows).seed(seed).shuffle().repeat()
