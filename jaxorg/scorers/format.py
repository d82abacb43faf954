"""An answer is right that is written as it was asked to be, whatever it says."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from jaxorg.config import Config, misfit
from jaxorg.data.matching import contains, holds, normalised
from jaxorg.scorers.base import Said, TextScorer

SCRIPTS = {
    "latin": ("LATIN",),
    "greek": ("GREEK",),
    "cyrillic": ("CYRILLIC",),
    "armenian": ("ARMENIAN",),
    "georgian": ("GEORGIAN",),
    "hebrew": ("HEBREW",),
    "arabic": ("ARABIC",),
    "devanagari": ("DEVANAGARI",),
    "bengali": ("BENGALI",),
    "tamil": ("TAMIL",),
    "thai": ("THAI",),
    "hangul": ("HANGUL",),
    "han": ("CJK",),
    "japanese": ("HIRAGANA", "KATAKANA", "CJK"),
}
"""Scripts by how Unicode begins the names of their letters."""

Script = Literal[
    "latin", "greek", "cyrillic", "armenian", "georgian", "hebrew", "arabic", "devanagari",
    "bengali", "tamil", "thai", "hangul", "han", "japanese",
]  # fmt: skip

MOST_FOREIGN = 0.2  # of an answer's letters: names and terms stay in their own script
# A word may have signs inside: don't, well-known. A character of Chinese or Japanese is one.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
_JOINED = re.compile(r"(?<=\w)['’-](?=\w)")
_BULLET = re.compile(r"[ \t]*[-*+•–][ \t]+(?=\S)")
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]*]*(?=\s|$)|[。！？]+|\n")
_SHORTENED = re.compile(
    r"(?<!\w)(?:mr|mrs|ms|dr|prof|st|no|fig|vs|etc|e\.g|i\.e|z\.b|d\.h|[a-z])\.$", re.IGNORECASE
)
_LONGEST_SHORTENED = 6
_QUOTES = " \"'“”‘’„«»`*_"

Text = Annotated[str, Field(min_length=1)]


class Count(Config):
    """How many there must be: a least, a most, or both."""

    at_least: int = Field(default=0, ge=0)
    at_most: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _possible(self) -> Count:
        if self.at_most is not None and self.at_most < self.at_least:
            raise misfit("at_most", self.at_most, "it must not be below at_least")
        return self

    def allows(self, number: int) -> bool:
        """Whether so many are as many as wanted."""
        return self.at_least <= number and (self.at_most is None or number <= self.at_most)


class Format(TextScorer):
    """The answer follows all instructions given, which can be verified without understanding it.

    In the manner of IFEval (Zhou et al. 2023, "Instruction-Following Evaluation for Large Language
    Models"); the reference is not looked at. A blank answer is wrong.
    """

    kind: Literal["format"]
    words: Count | None = None
    sentences: Count | None = None
    bullets: Count | None = None
    case: Literal["upper", "lower"] | None = None
    starts_with: Text | None = None
    ends_with: Text | None = None
    forbidden: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    script: Script | None = None

    @field_validator("starts_with", "ends_with", "forbidden")
    @classmethod
    def _say_something(cls, given: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        texts = (given,) if isinstance(given, str) else given or ()
        if not all(map(normalised, texts)):
            raise ValueError("it is blank; leave it out")
        return given

    @model_validator(mode="after")
    def _instructs(self) -> Format:
        if not self.model_fields_set - {"kind"}:
            raise misfit("kind", self.kind, "give an instruction, such as words: {at_most: 50}")
        return self

    def is_right(self, said: Said) -> bool:
        """Whether the answer says anything, and every instruction is followed."""
        return bool(said.answer.strip()) and all(self._followed(said.answer))

    def _followed(self, answer: str) -> Iterator[bool]:
        """Whether each instruction is followed."""
        counted = ((self.words, words), (self.sentences, sentences), (self.bullets, bullets))
        for wanted, count in counted:
            if wanted:
                yield wanted.allows(count(answer))
        if self.case:
            yield answer.isupper() if self.case == "upper" else answer.islower()
        if self.starts_with:
            yield _begins(answer, self.starts_with)
        if self.ends_with:
            yield _ends(answer, self.ends_with)
        for text in self.forbidden:
            yield not contains(answer, text)
        if self.script:
            yield is_in(answer, self.script)


def words(text: str) -> int:
    """How many words a text has: runs of letters and digits; don't and well-known are one each, and
    so is every character of Chinese and Japanese."""
    marked = "".join(c for c in text if not unicodedata.category(c).startswith("M"))
    return len(_WORD.findall(_JOINED.sub("", marked)))


def sentences(text: str) -> int:
    """How many sentences a text has, a line break ending one, too; not so the points of numbers,
    initials and some common abbreviations."""
    begins, number = 0, 0
    for end in _SENTENCE_END.finditer(text):
        last = text[max(begins, end.end() - _LONGEST_SHORTENED) : end.end()]
        if _SHORTENED.search(last) and text[end.end() :].lstrip():
            continue
        number += bool(_WORD.search(text, begins, end.start()))
        begins = end.end()
    return number + bool(_WORD.search(text, begins))


def bullets(text: str) -> int:
    """How many lines of a text begin with `-`, `*`, `+`, `•` or `–` and a space."""
    return sum(bool(_BULLET.match(line)) for line in text.splitlines())


def is_in(text: str, script: Script) -> bool:
    """Whether most letters of a text are of a script, but for `MOST_FOREIGN` of them. Japanese
    has some kana; Chinese, `han`, has none."""
    letters = [
        unicodedata.name(c, "").split(" ", 1)[0]
        for c in unicodedata.normalize("NFKC", text)
        if c.isalpha()
    ]
    own = sum(name in SCRIPTS[script] for name in letters)
    kana = script != "japanese" or any(name != "CJK" for name in letters if name in SCRIPTS[script])
    return bool(letters) and kana and own >= (1 - MOST_FOREIGN) * len(letters)


def _begins(text: str, phrase: str) -> bool:
    """Whether a text begins with a phrase, as words of its own, in any case; quotes aside."""
    text, phrase = normalised(text), normalised(phrase)
    return any(
        whole.startswith(phrase) and holds(whole[: len(phrase) + 1], phrase)
        for whole in (text, text.lstrip(_QUOTES))
    )


def _ends(text: str, phrase: str) -> bool:
    """Whether a text ends with a phrase, as `_begins`."""
    text, phrase = normalised(text), normalised(phrase)
    return any(
        whole.endswith(phrase) and holds(whole[-len(phrase) - 1 :], phrase)
        for whole in (text, text.rstrip(_QUOTES))
    )
