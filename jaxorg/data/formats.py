"""Shapes of records in prompt files: named fields, Alpaca's, and conversations.

Each shape turns a record into a prompt and its answer, or refuses it in one line. An answer that is
not wanted need not be there, and is empty.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxorg.runtime import Refusal, short

Format = Literal["fields", "alpaca", "openhermes", "messages"]

_KEY = "prompts.format"
_REMEDY = "; add answers, or have a model give them with prompts.teacher"
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON may spell one; no text holds it


@dataclass(frozen=True)
class Fields:
    """A prompt and an answer in fields of any name, which may be dotted paths into records."""

    prompt: str
    answer: str
    answered: bool  # whether answers are wanted

    @property
    def columns(self) -> Sequence[str]:
        """The columns of a table that may be read, of which the first `needed` must be there."""
        names = (self.prompt, self.answer) if self.answered else (self.prompt,)
        return tuple(dict.fromkeys(name.partition(".")[0] for name in names))

    @property
    def needed(self) -> int:
        """How many of `columns` must be there."""
        return len(self.columns)

    def read(self, record: Any, where: str) -> tuple[str, str]:
        """The prompt and the answer of a record; `where` names it in messages."""
        prompt = _at(record, self.prompt, where, "prompts.prompt")
        prompt = _text(prompt, self.prompt, where, "prompts.prompt")
        if not self.answered:
            return prompt, ""
        answer = _at(record, self.answer, where, "prompts.answer", _REMEDY)
        return prompt, _text(answer, self.answer, where, "prompts.answer")


@dataclass(frozen=True)
class Alpaca:
    """`instruction`, `output` and perhaps `input`, as in Stanford's Alpaca."""

    answered: bool

    @property
    def columns(self) -> Sequence[str]:
        """As in `Fields`."""
        return ("instruction", "output", "input") if self.answered else ("instruction", "input")

    @property
    def needed(self) -> int:
        """All but the input."""
        return len(self.columns) - 1

    def read(self, record: Any, where: str) -> tuple[str, str]:
        """The instruction, below it the input if there is one, and the output."""
        prompt = _text(_at(record, "instruction", where), "instruction", where)
        if not _is_blank(context := record.get("input")):
            prompt = f"{prompt}\n\n{_text(context, 'input', where)}"
        if not self.answered:
            return prompt, ""
        return prompt, _text(_at(record, "output", where, _KEY, _REMEDY), "output", where)


@dataclass(frozen=True)
class Conversation:
    """A list of turns, each with its speaker and its text. Names are those of the format.

    The prompt is the first question, below what a system turn before it says, since not every chat
    template has a place for one. The answer is the turn after it. Later turns are not read.
    """

    turns: str
    speaker: str
    text: str
    system: str
    asks: str
    answers: str
    answered: bool

    @property
    def columns(self) -> Sequence[str]:
        """As in `Fields`."""
        return (self.turns,)

    @property
    def needed(self) -> int:
        """As in `Fields`."""
        return 1

    def read(self, record: Any, where: str) -> tuple[str, str]:
        """The first question, and the answer to it."""
        turns = _at(record, self.turns, where)
        if not isinstance(turns, list):
            raise Refusal(f"{_KEY}: {self.turns!r} in {where} is no list: {short(turns)}")
        first = int(self._by(turns, 0) == self.system)
        prompt = self._said(turns, first, self.asks, where)
        if first and not _is_blank(turns[0].get(self.text)):
            prompt = f"{self._said(turns, 0, self.system, where)}\n\n{prompt}"
        if not self.answered:
            return prompt, ""
        return prompt, self._said(turns, first + 1, self.answers, where, _REMEDY)

    def _by(self, turns: list[Any], at: int) -> Any:
        """Who speaks a turn."""
        turn = turns[at] if at < len(turns) else None
        return turn.get(self.speaker) if isinstance(turn, dict) else None

    def _said(self, turns: list[Any], at: int, by: str, where: str, remedy: str = "") -> str:
        """What a turn says, which must be of speaker `by`."""
        if (found_by := self._by(turns, at)) != by:
            found = f"is by {short(found_by)}" if at < len(turns) else "is not there"
            raise Refusal(
                f"{_KEY}: {self.turns}.{at} in {where} {found}, but must be by {by!r}{remedy}"
            )
        name = f"{self.turns}.{at}.{self.text}"
        return _text(turns[at].get(self.text), name, where)


Reader = Fields | Alpaca | Conversation


def reader(form: Format, prompt: str, answer: str, answered: bool) -> Reader:
    """What reads the records of a format.

    Args:
        form: the format.
        prompt, answer: names of fields, for `fields`.
        answered: whether answers are wanted.
    """
    match form:
        case "fields":
            return Fields(prompt, answer, answered)
        case "alpaca":
            return Alpaca(answered)
        case "openhermes":
            names = ("conversations", "from", "value", "system", "human", "gpt")
        case "messages":
            names = ("messages", "role", "content", "system", "user", "assistant")
    return Conversation(*names, answered)


def _is_index(part: str, values: list[Any]) -> bool:
    return part.isdecimal() and len(part) < 10 and int(part) < len(values)


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _at(record: Any, name: str, where: str, key: str = _KEY, remedy: str = "") -> Any:
    """Follow a dotted path into a record."""
    value = record
    for part in name.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and _is_index(part, value):
            value = value[int(part)]
        else:
            known = ", ".join(record) if isinstance(record, dict) else type(record).__name__
            raise Refusal(f"{key}: {name!r} is not in {where}; it has {known}{remedy}")
    return value


def _text(value: Any, name: str, where: str, key: str = _KEY) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value.strip() or _HALF_CHARACTER.search(value):
        raise Refusal(f"{key}: {name!r} in {where} is no text: {short(value)}")
    return value
