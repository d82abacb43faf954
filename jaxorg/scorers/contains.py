"""An answer is right that has the reference, or one of some texts, in it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from jaxorg.data.matching import contains, normalised
from jaxorg.scorers.base import Said, TextScorer


class Contains(TextScorer):
    """The answer has the reference in it, or any one of `texts`, as words of their own.

    Case, spacing, invisible characters and Unicode's styles of letters are looked past. What is
    said about the text is not understood: `not Paris` contains `Paris`.
    """

    kind: Literal["contains"]
    texts: Annotated[tuple[str, ...], Field(strict=False)] = ()  # in place of the reference

    @field_validator("texts")
    @classmethod
    def _say_something(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(normalised, texts)):
            raise ValueError("one of the texts is blank; leave it out")
        return texts

    def unsuited(self, prompt: str, reference: str) -> str:
        """A blank reference stands in every answer."""
        if self.texts or normalised(reference):
            return ""
        return "the reference is blank; give texts"

    def is_right(self, said: Said) -> bool:
        """Whether one of the texts, or the reference where there are none, stands in the answer."""
        texts = self.texts or (said.reference,)
        return any(normalised(text) and contains(said.answer, text) for text in texts)
