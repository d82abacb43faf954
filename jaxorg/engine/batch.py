"""Tokenised conversations as a step or a scoring pass takes them.

Shape letters as in `jaxorg.llama.model`; here B is the rows of a batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

Array = Any  # of jax or numpy


class Batch(NamedTuple):
    """Tokenised conversations, one a row, on the host or on a device."""

    tokens: Array  # int32 [B, T], padded on the right
    spans: Array  # int32 [B, 2]: first and one past last token of the completion
    beside: Any = ()  # what an objective knows of each row

    @property
    def real(self) -> Array:
        """Tokens that are no padding []: a row's completion ends where the row does."""
        return self.spans[..., 1].sum(axis=-1)


class PackedBatch(NamedTuple):
    """Tokenised conversations, several one after another in a row. None sees another."""

    tokens: Array  # int32 [B, T], padded on the right
    segments: Array  # int32 [B, T]: the number of a token's conversation in its row; padding 0
    positions: Array  # int32 [B, T]: of tokens in their conversations, from 0
    completion: Array  # bool [B, T]: tokens that count

    @property
    def real(self) -> Array:
        """Tokens that are no padding []."""
        return (self.segments > 0).sum(axis=(-2, -1))


class Completions(NamedTuple):
    """Given completions of prompts that were read before, one a row; rows of zeros fill up."""

    of: Array  # int32 [R]: which of the prompts
    lengths: Array  # int32 [R]: tokens of the prompt
    tokens: Array  # int32 [R, C + 1]: the prompt's last one, then the completion, padded behind
    count: Array  # int32 [R]: tokens of the completion


AnyBatch = Batch | PackedBatch
B = TypeVar("B", bound=AnyBatch)
