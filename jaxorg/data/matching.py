"""When two texts count as the same, and when one stands in another."""

from __future__ import annotations

import re
import unicodedata

# Default_Ignorable_Code_Point of Unicode: characters that nobody sees.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Scripts that put no spaces between words, by how the names of their letters begin.
_UNSPACED = ("CJK ", "HIRAGANA ", "KATAKANA ", "THAI ", "LAO ", "KHMER ", "MYANMAR ")
_SOMETHING = re.compile(r"\S")


def normalised(text: str) -> str:
    """A text without what people look past: case, the amount of whitespace and where it stands,
    invisible characters, and the styles that Unicode has for a letter (its NFKC_Casefold)."""
    if text.isascii():
        return " ".join(text.lower().split())
    for _ in range(2):  # folding case may leave what is to be composed again
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).casefold()
    return " ".join(unicodedata.normalize("NFKC", text).split())


def contains(text: str, phrase: str) -> bool:
    """Whether a phrase stands in a text as words of its own, in any case, spacing and style of
    letters: `no` in `No!`, not in `snow`."""
    return holds(normalised(text), normalised(phrase))


def holds(text: str, *phrases: str) -> bool:
    """Whether phrases stand in a text one after the other, each as words of its own, and something
    between them. Where one begins or ends with no letter or digit, anything may stand beside it; so
    it may in scripts that put no spaces between words. An empty phrase is anything. All are
    normalised."""
    at = 0
    for phrase in phrases:
        end = _end_of(phrase, text, at)
        if end is None:
            return False
        at = end + 1
    return True


def words_of(normal: str) -> list[str]:
    """The words and signs of a normalised text."""
    found: list[str] = re.findall(r"\w+|[^\w\s]", normal)
    return found


def _end_of(phrase: str, text: str, at: int) -> int | None:
    """Where a phrase ends that stands in a text from `at` on; None where there is none."""
    if not phrase:
        found = _SOMETHING.search(text, at)
        return found.end() if found else None
    at = text.find(phrase, at)
    while at >= 0 and (_in_a_word(text, at) or _in_a_word(text, at + len(phrase))):
        at = text.find(phrase, at + 1)
    return at + len(phrase) if at >= 0 else None


def _in_a_word(text: str, at: int) -> bool:
    """Whether a place in a text has letters or digits of one word on both sides."""
    return 0 < at < len(text) and _of_a_word(text[at - 1]) and _of_a_word(text[at])


def _of_a_word(char: str) -> bool:
    mark = unicodedata.category(char).startswith("M")  # vowel signs and accents
    spaced = not unicodedata.name(char, "").startswith(_UNSPACED)
    return spaced and (mark or char.isalnum())
