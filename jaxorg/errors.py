"""What can go wrong in a way that jaxorg answers for, and how a message shows a value.

Imports nothing of jaxorg's and nothing heavy: whatever refuses needs this and no more.
"""

from __future__ import annotations

import reprlib
from typing import Any


class Refusal(Exception):
    """What was asked cannot be done: one line naming the key, the value and the remedy.

    Commands print it and leave with exit code 2; nothing on disk has changed.
    """


class Damaged(Exception):
    """A file is missing, cut short or not what was written."""


class StorageError(Exception):
    """The disk does not take what must be written, or does not let it be read; what is there stays.

    Commands print it as one line and leave with exit code 1.
    """


class Parted(Exception):
    """The processes cannot go on together; one line says which of them met what."""


class _Repr(reprlib.Repr):
    """`repr` whose work and length are bounded, whatever the value."""

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to print integers of thousands of digits.
        return repr(x) if x.bit_length() < 1000 else f"a number of {x.bit_length()} bits"


_REPR = _Repr()
_REPR.maxdict = _REPR.maxlist = 10
_REPR.maxstring = 60


def short(value: Any, most: int = 60) -> str:
    """A value as a message shows it: `repr`, cut at `most` characters."""
    text = _REPR.repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def install(extra: str) -> str:
    """How to get the packages of an extra: jaxorg is on no index."""
    return f"run pip install -e '.[{extra}]' in its checkout"
