"""An answer is right in which a regular expression finds something."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator

from jaxorg.scorers.base import Said, Scorer

MOST_STATES = 2000  # of a pattern; of those tested none took 3 seconds for 10^5 characters
_COUNTED = re.compile(r"(\)?)\{(\d+)(?:,(\d*))?\}")
_LONGEST_COUNT = 4  # digits


class Regex(Scorer):
    """The pattern is found somewhere in the answer; `^` and `$` are the whole answer's ends.

    The syntax is RE2's (Cox 2010, "Regular Expression Matching in the Wild"), which takes time in
    proportion to the text, whatever the pattern: without back-references and look-arounds, with
    `(?i)`, `(?m)`, `(?s)` and Unicode's classes, such as `\\p{Greek}`. A time-out in their place
    would let a figure depend on how busy the machine was.
    """

    kind: Literal["regex"]
    pattern: str = Field(min_length=1, max_length=1000)

    @field_validator("pattern")
    @classmethod
    def _can_be_read(cls, pattern: str) -> str:
        if (most := _states(pattern)) > MOST_STATES:
            raise ValueError(f"it has up to {most} states; count fewer repetitions: {MOST_STATES}")
        try:
            _found(pattern, [""])
        except ValueError as error:
            raise ValueError(f"{_complaint(error)}; write it as RE2 reads it") from None
        return pattern

    def score(self, said: Sequence[Said]) -> list[bool]:
        """Whether the pattern is found in each answer, all in one call."""
        return _found(self.pattern, [each.answer for each in said])


def _found(pattern: str, texts: Sequence[str]) -> list[bool]:
    """Whether a pattern is found in texts. Raises `ValueError` where it cannot be read."""
    import pyarrow as pa  # it takes a while, and has RE2
    from pyarrow import compute

    # Halves of characters, which JSON may spell, have no UTF-8; they count as `?`.
    whole = [text.encode("utf-8", "replace").decode() for text in texts]
    found: list[bool] = compute.match_substring_regex(
        pa.array(whole, pa.large_string()), pattern.encode("utf-8", "replace").decode()
    ).to_pylist()
    return found


def _states(pattern: str) -> int:
    """A bound on the states of a pattern's automaton, by which its time is multiplied: what is
    counted is repeated, and a counted group may hold all the rest."""
    counts = {"": [0], ")": [1]}
    for group, least, most in _COUNTED.findall(pattern):
        digits = max(least, most, key=len)[: _LONGEST_COUNT + 1]
        counts[group].append(int(digits))
    return (len(pattern) + sum(counts[""])) * math.prod(counts[")"])


def _complaint(error: ValueError) -> str:
    """What RE2 says of a pattern, in a line."""
    return str(error).removeprefix("Invalid regular expression: ").splitlines()[0]
