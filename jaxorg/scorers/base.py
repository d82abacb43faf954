"""What every scorer states: which answers to prompts are right, by their text alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from jaxorg.config import Config
from jaxorg.discovery import version_of


class Said(NamedTuple):
    """An answer to a prompt, and what it is compared with."""

    prompt: str
    reference: str  # the data file's own answer
    answer: str


class Scorer(Config):
    """A way of telling right answers from wrong ones."""

    VERSION: ClassVar[int] = 1  # raise it when any answer may be judged otherwise

    kind: str

    @property
    def identity(self) -> Any:
        """All that its judgements depend on, in JSON."""
        return [version_of(type(self)), self.model_dump()]

    def unsuited(self, prompt: str, reference: str) -> str:
        """Why no answer to a prompt could be judged, and what to do; "" if answers can be."""
        return ""

    @abstractmethod
    def score(self, said: Sequence[Said]) -> Sequence[bool | None]:
        """Whether each answer is right; None of one that a judge could not judge."""


class TextScorer(Scorer):
    """A scorer that judges each answer by itself, always in the same way."""

    def score(self, said: Sequence[Said]) -> list[bool]:
        """Each answer's verdict, in order; none is left open."""
        return [self.is_right(each) for each in said]

    @abstractmethod
    def is_right(self, said: Said) -> bool:
        """Whether one answer is right."""
