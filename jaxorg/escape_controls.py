"""Foreign text made safe to show: nothing in it can move, hide or command what stands around it."""

from __future__ import annotations

import unicodedata

# Controls and formats (bidirectional overrides, zero widths, tags), halves of characters, breaks.
_UNSEEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def escape_controls(text: str) -> str:
    """The text with every character that would act, or not be seen, replaced by a sign for it.

    Line feeds and tabs stay. ASCII controls become Unicode's pictures of them (`␛`), others their
    code (`⟨U+202E⟩`).
    """
    if text.isprintable():
        return text
    return "".join(map(_sign, text))


def _sign(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in _UNSEEN:
        return character
    code = ord(character)
    if code < 32:
        return chr(0x2400 + code)
    return "␡" if code == 127 else f"⟨U+{code:04X}⟩"
