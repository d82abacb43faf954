"""An answer is right that is the reference, but for what people look past."""

from __future__ import annotations

from typing import Literal

from jaxorg.data.matching import normalised
from jaxorg.scorers.base import Said, TextScorer

# Quotes, brackets, ends of sentences and Markdown, not signs that carry meaning: C# -5 50% $3 .5
_AROUND = "\"'`“”„‟‘’‚‛«»‹›「」『』《》()[]{}*_,;:!?¡¿…。、！？；：،؛؟।"
_ARTICLES = ("a ", "an ", "the ")


class Exact(TextScorer):
    """The whole answer is the reference, both normalised.

    Case, spacing, invisible characters, Unicode's styles of letters, an English article before it,
    and quotes, brackets, Markdown and ends of sentences around it are looked past.
    """

    kind: Literal["exact"]

    def unsuited(self, prompt: str, reference: str) -> str:
        """A blank reference would be met by silence."""
        return "" if normalised(reference) else "the reference is blank; leave the record out"

    def is_right(self, said: Said) -> bool:
        """Whether answer and reference are one text once case, article and signs around are off."""
        reference = bare(said.reference)
        return bool(reference) and bare(said.answer) == reference


def bare(text: str) -> str:
    """A normalised text without an article before it and signs around it; of signs alone, all."""
    whole = normalised(text)
    inside = whole.lstrip(_AROUND + " ").rstrip(_AROUND + ". ")
    for article in _ARTICLES:
        inside = inside.removeprefix(article) if inside != article.strip() else inside
    return inside.lstrip(_AROUND + " ") or whole
