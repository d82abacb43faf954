"""What a word that is not known, or a value that is no text, was probably meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LIKE = 0.6  # share of two words that must agree, as difflib has it


def nearest(word: object, known: Iterable[str]) -> str | None:
    """The known word most like one in another case or spelling; None where none is like it."""
    if not isinstance(word, str):
        return None
    plain = {_plain(name): name for name in reversed([*known])}
    close = difflib.get_close_matches(_plain(word), plain, n=1, cutoff=_LIKE)
    return plain[close[0]] if close else None


def choose(word: object, known: Iterable[str]) -> str:
    """The remedy for a word that is not among those `known`."""
    names = [*known]
    close = nearest(word, names)
    meant = f"did you mean {close}? " if close else ""
    return f"{meant}choose from {', '.join(names)}"


def quoted(found: object) -> str:
    """What to do where YAML read something else than the text that was meant."""
    match found:
        case None:
            return "put text that begins with # in quotes"
        case bool():
            return "put it in quotes, since YAML takes yes, no, on and off for true and false"
        case dict():
            return "put text with a colon or braces in quotes"
        case _:
            return "put it in quotes"


def _plain(word: str) -> str:
    return word.lower().replace("-", "_")
