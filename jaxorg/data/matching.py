"""When two texts count as the same, and when one stands in another."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

# Default_Ignorable_Code_Point of Unicode: characters that nobody sees.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Letters and digits, but for scripts that put no spaces between words.
_LETTER = (
    "[^\\W_\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]"
)


def normalised(text: str) -> str:
    """A text without what people look past: case, the amount of whitespace and where it stands,
    invisible characters, and the styles that Unicode has for a letter (its NFKC_Casefold)."""
    if text.isascii():
        return " ".join(text.lower().split())
    for _ in range(2):  # folding case may leave what is to be composed again
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).casefold()
    return " ".join(unicodedata.normalize("NFKC", text).split())


def holds(text: str, *phrases: str) -> bool:
    """Whether phrases stand in a text one after the other, each as words of its own, and something
    between them: `no` in `no!`, not in `snow`. An empty phrase is anything. All are normalised."""
    at = 0
    for phrase in phrases:
        found = _pattern(phrase).search(text, at) if phrase in text else None
        if found is None:
            return False
        at = found.end() + 1
    return True


def words_of(normal: str) -> list[str]:
    """The words and signs of a normalised text."""
    found: list[str] = re.findall(r"\w+|[^\w\s]", normal)
    return found


@cache
def _pattern(phrase: str) -> re.Pattern[str]:
    """What finds a phrase that does not begin or end within a word."""
    if not phrase:
        return re.compile(r"\S")
    before = f"(?<!{_LETTER})" if re.match(_LETTER, phrase) else ""
    after = f"(?!{_LETTER})" if re.match(_LETTER, phrase[-1]) else ""
    return re.compile(before + re.escape(phrase) + after)
