"""How what models are asked is laid out in calls: prompts of about equal length are read together,
each once, and completions of about equal length go on from them.

A call's shape follows from the lengths that its rows are padded to and from nothing else, so that
what comes of a row does not depend on what else is asked, and few programs are compiled: one a
padded length of prompts, and one for each of those and a padded length of completions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxorg.data.tokenized import Example, TokenizedDataset
from jaxorg.engine.batch import Completions
from jaxorg.engine.cohort import Scorer

TOKENS = 2048  # of a run on one device in a call, which few rows do not leave empty
MOST_ROWS = 64  # in such a call
MOST_LOGITS = 2**28  # of a run on one device in such a call: 1 GiB in fp32
MOST_CACHE = 2**28  # bytes that keys and values of such a call take
PROMPT_PAD_MULTIPLE = 16  # tokens; prompts are padded to a multiple, long ones of about an eighth
PAD_MULTIPLE = 8  # the same of completions

Ids = Sequence[int] | np.ndarray


class Requests(NamedTuple):
    """Completions of about equal length that one model is to score, by their prompts' numbers."""

    examples: Sequence[Example]
    rows: Completions  # on the host, a row each

    def between(self, first: int, end: int) -> Requests:
        """Those of some prompts alone, whose numbers then count from 0."""
        found = self.part(slice(*np.searchsorted(self.rows.of, (first, end))))
        return found._replace(rows=found.rows._replace(of=found.rows.of - first))

    def part(self, which: slice) -> Requests:
        """Some of them."""
        return Requests(self.examples[which], Completions(*(x[which] for x in self.rows)))


@dataclass(frozen=True)
class Part:
    """What one model is asked about prompts of about equal length."""

    prompts: Sequence[np.ndarray]  # their tokens
    requests: Mapping[int, Requests]  # by the length that completions are padded to

    def between(self, first: int, end: int) -> Part:
        """The same of some prompts alone."""
        requests = {count: each.between(first, end) for count, each in self.requests.items()}
        return Part(self.prompts[first:end], requests)


Parts = Mapping[int, Part]  # by the length that prompts are padded to


def parts_of(examples: Sequence[Example], encoded: TokenizedDataset) -> Parts:
    """Conversations to score, by the lengths of their prompts and completions.

    Args:
        examples: N conversations, each once.
        encoded: the same in tokens.
    """
    rows: dict[int, list[int]] = defaultdict(list)
    for row, (start, _) in enumerate(encoded.spans.tolist()):
        rows[prompt_width(start)].append(row)
    return {width: _part(examples, encoded, chosen) for width, chosen in rows.items()}


def _part(examples: Sequence[Example], encoded: TokenizedDataset, rows: Sequence[int]) -> Part:
    """What is asked by some rows, whose prompts are of about equal length."""
    numbers: dict[bytes, int] = {}
    prompts: list[np.ndarray] = []
    asked: dict[int, list[tuple[int, int]]] = defaultdict(list)  # prompt and row, by length
    for row in rows:
        start, end = encoded.spans[row].tolist()
        prompt = encoded.tokens[row, :start]
        number = numbers.setdefault(prompt.tobytes(), len(prompts))
        if number == len(prompts):
            prompts.append(prompt)
        asked[rounded(end - start, PAD_MULTIPLE)].append((number, row))
    requests = {
        count: _requests(examples, encoded, sorted(of_length), count)
        for count, of_length in asked.items()
    }
    return Part(prompts, requests)


def _requests(
    examples: Sequence[Example],
    encoded: TokenizedDataset,
    asked: Sequence[tuple[int, int]],
    count: int,
) -> Requests:
    """Completions, each by the number of its prompt and its row, padded to `count` tokens."""
    of, rows = np.array(asked, np.int32).T
    starts, ends = encoded.spans[rows].T
    tokens = np.zeros((len(rows), count + 1), np.int32)
    for padded, row, start, end in zip(tokens, rows, starts, ends, strict=True):
        padded[: end - start + 1] = encoded.tokens[row, start - 1 : end]
    return Requests([examples[row] for row in rows], Completions(of, starts, tokens, ends - starts))


class Group(NamedTuple):
    """Prompts that are read in one call, and what goes on from them."""

    width: int  # that prompts are padded to
    lanes: Sequence[Part]  # what of each model is in it
    prompts: np.ndarray  # int32 [run, G, width]
    lengths: np.ndarray  # int32 [run, G]

    def completions(self, scorer: Scorer) -> Iterator[tuple[list[Sequence[Example]], Completions]]:
        """What each lane asks in a call, and its rows on the host."""
        for count in sorted({count for lane in self.lanes for count in lane.requests}):
            asked = [lane.requests.get(count, _nothing(count)) for lane in self.lanes]
            rows = completions_at_once(scorer, self.width, count)
            for first in range(0, max(len(each.examples) for each in asked), rows):
                now = [each.part(slice(first, first + rows)) for each in asked]
                yield [each.examples for each in now], _filled([each.rows for each in now], rows)


def _nothing(count: int) -> Requests:
    none = np.zeros(0, np.int32)
    return Requests([], Completions(none, none, np.zeros((0, count + 1), np.int32), none))


def _filled(lanes: Sequence[Completions], rows: int) -> Completions:
    """The rows of all lanes [run, rows, …], which end with empty ones."""

    def of_lane(x: np.ndarray) -> np.ndarray:
        return np.pad(x, ((0, rows - len(x)), *[(0, 0)] * (x.ndim - 1)))

    return Completions(
        *(np.stack([of_lane(x) for x in parts]) for parts in zip(*lanes, strict=True))
    )


def groups(scorer: Scorer, lanes: Sequence[Parts]) -> Iterator[Group]:
    """All that stacked models are asked, a call's prompts at a time.

    Args:
        scorer: of the models.
        lanes: what each is asked.
    """
    nothing = Part((), {})
    for width in sorted({width for lane in lanes for width in lane}):
        parts = [lane.get(width, nothing) for lane in lanes]
        count = prompts_at_once(scorer, width)
        for first in range(0, max(len(part.prompts) for part in parts), count):
            now = [part.between(first, first + count) for part in parts]
            yield Group(width, now, *padded([part.prompts for part in now], count, width))


def alike(
    lanes: Sequence[Sequence[Ids]], at_once: Callable[[int], int]
) -> Iterator[tuple[int, list[list[int]]]]:
    """The length that some prompts of about equal length are padded to, and their numbers.

    Args:
        lanes: prompts in tokens, of each lane.
        at_once: how many there are in a call, by that length.
    """
    numbers: dict[int, list[list[int]]] = defaultdict(lambda: [[] for _ in lanes])
    for lane, prompts in enumerate(lanes):
        for number, ids in enumerate(prompts):
            numbers[prompt_width(len(ids))][lane].append(number)
    for width, found in sorted(numbers.items()):
        for first in range(0, max(map(len, found)), at_once(width)):
            yield width, [of_lane[first : first + at_once(width)] for of_lane in found]


def padded(lanes: Sequence[Sequence[Ids]], count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompts [run, count, width], padded on the right, and their own lengths [run, count]. Where
    there are fewer, rows of one token.

    Args:
        lanes: prompts in tokens, of each lane.
        count: rows of a lane.
        width: tokens of a row.
    """
    tokens = np.zeros((len(lanes), count, width), np.int32)
    lengths = np.ones((len(lanes), count), np.int32)
    for lane, prompts in enumerate(lanes):
        for row, ids in enumerate(prompts):
            tokens[lane, row, : len(ids)], lengths[lane, row] = ids, len(ids)
    return tokens, lengths


def prompt_width(length: int) -> int:
    """The length that a prompt of `length` tokens is padded to."""
    return rounded(length, PROMPT_PAD_MULTIPLE)


def rounded(length: int, multiple: int) -> int:
    """A length rounded up, so that few different programs are compiled: up to eight each time that
    it doubles."""
    multiple = max(multiple, 1 << max(0, length.bit_length() - 4))
    return -(-length // multiple) * multiple


def prompts_at_once(scorer: Scorer, width: int) -> int:
    """How many prompts of `width` tokens a call reads of each run."""
    return rows_at_once(scorer, width, logits=0, slots=width)


def completions_at_once(scorer: Scorer, width: int, count: int) -> int:
    """How many completions of `count` tokens a call scores of each run, after prompts of `width`
    tokens."""
    return rows_at_once(scorer, count, logits=count, slots=width + count)


def prompts_answered_at_once(scorer: Scorer, new_tokens: int, answers: int, width: int) -> int:
    """How many prompts are answered in a call of each run.

    Args:
        scorer: of the models.
        new_tokens: of an answer.
        answers: to each prompt.
        width: tokens of a prompt.
    """
    rows = rows_at_once(scorer, 1, logits=1, slots=width + new_tokens)
    devices: int = scorer.mesh.shape["fsdp"]
    return min(prompts_at_once(scorer, width), devices * max(1, rows // (answers * devices)))


def rows_at_once(scorer: Scorer, tokens: int, logits: int, slots: int) -> int:
    """How many rows a call has of each run: as many as make a call worth its while and have room
    for their logits, keys and values, the same number on each device that the run is spread over.

    Args:
        scorer: of the models.
        tokens: of a row.
        logits: tokens of a row that have logits.
        slots: tokens of a row whose keys and values are kept.
    """
    shape, config = scorer.mesh.shape, scorer.model.config
    devices: int = shape["fsdp"]
    heads = config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    kept = 2 * heads * jnp.dtype(scorer.model.dtype).itemsize * slots
    numbers = logits * config.vocab_size // shape["tensor"]
    bounds = [MOST_ROWS // devices, TOKENS // tokens]
    bounds += [MOST_LOGITS // numbers] if numbers else []
    bounds += [MOST_CACHE // kept] if kept else []
    return devices * max(1, min(bounds))
