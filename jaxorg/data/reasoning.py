"""Reasoning before an answer: `[reasoning] answer`, in marks that every tokenizer has."""

from __future__ import annotations

import re
from typing import NamedTuple

OPEN, CLOSE = "[", "]"
_PARTS = re.compile(r"\s*\[(?P<reasoning>[^\]]*)\]\s*(?P<answer>.*)", re.DOTALL)


class Parted(NamedTuple):
    """What a model thinks and what it says; no reasoning is None, an empty one is a text."""

    reasoning: str | None
    answer: str


def with_reasoning(reasoning: str, answer: str) -> str:
    """A completion that reasons before it answers."""
    return f"{thought(reasoning)} {answer}"


def thought(reasoning: str) -> str:
    """The reasoning in its marks, as a completion begins with it."""
    return f"{OPEN}{reasoning}{CLOSE}"


def parted(completion: str) -> Parted:
    """A completion's reasoning and answer; of one whose reasoning never ends, all is reasoning."""
    if found := _PARTS.match(completion):
        return Parted(found["reasoning"], found["answer"])
    if completion.lstrip().startswith(OPEN):
        return Parted(completion.lstrip()[len(OPEN) :], "")
    return Parted(None, completion)
