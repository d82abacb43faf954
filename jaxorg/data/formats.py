"""Shapes of records in prompt files: named fields, Alpaca's, and conversations.

Each shape turns a record into a prompt and its answer, or says in one line why it cannot. An answer
that is not wanted need not be there, and is empty.
"""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxorg.errors import Refusal, short

Format = Literal["fields", "alpaca", "openhermes", "messages"]

_KEY = "prompts.format"
_REMEDY = "add answers, or have a model give them with prompts.teacher"
_NAME_IT = "name the field that has the prompt"
_SYSTEM = "system"  # a record's own instruction to the model, and the speaker of such a turn
# Of turns, in ShareGPT's spelling and in that of chat templates.
_SPEAKER, _CONTENT = ("from", "role"), ("value", "content")
_ASKS, _ANSWERS = ("human", "user"), ("gpt", "assistant")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON may spell one; no text holds it


class Unusable(Refusal):
    """A record that is no prompt and answer: blank, or broken otherwise."""

    def __init__(
        self,
        problem: str,
        remedy: str = "mend it",
        reason: Literal["blank", "broken"] = "broken",
    ):
        super().__init__(f"{problem}; {remedy}")
        self.problem, self.reason = problem, reason


@dataclass(frozen=True)
class Fields:
    """A prompt and an answer in fields of any name, which may be dotted paths into records."""

    prompt: str
    answer: str
    answered: bool  # whether answers are wanted

    def columns(self, names: Sequence[str], where: str) -> Sequence[str]:
        """Which columns of a table to read, of the `names` that it has.

        Raises:
            Unusable: one is missing from the table, whose first record is `where`.
        """
        found = [_column(names, self.prompt, where, "prompts.prompt", _NAME_IT)]
        if self.answered:
            found.append(_column(names, self.answer, where, "prompts.answer", _REMEDY))
        return tuple(dict.fromkeys(found))

    def read(self, record: Any, where: str) -> tuple[str, str]:
        """The prompt and the answer of a record; `where` names it in messages.

        Raises:
            Unusable: it has none.
        """
        prompt = _at(record, self.prompt, where, "prompts.prompt", _NAME_IT)
        prompt = _text(prompt, self.prompt, where, "prompts.prompt")
        if not self.answered:
            return prompt, ""
        answer = _at(record, self.answer, where, "prompts.answer", _REMEDY)
        return prompt, _text(answer, self.answer, where, "prompts.answer")


@dataclass(frozen=True)
class Alpaca:
    """`instruction`, `output` and perhaps `input` and `system`, as in Stanford's Alpaca and what
    came after it."""

    answered: bool

    def columns(self, names: Sequence[str], where: str) -> Sequence[str]:
        """As in `Fields`."""
        found = [_column(names, "instruction", where)]
        if self.answered:
            found.append(_column(names, "output", where, _KEY, _REMEDY))
        return *found, *(name for name in ("input", _SYSTEM) if name in names)

    def read(self, record: Any, where: str) -> tuple[str, str]:
        """What the system says if anything, the instruction, below it the input if there is one;
        and the output."""
        instruction = _text(_at(record, "instruction", where), "instruction", where)
        system, context = (_perhaps(record, name, where) for name in (_SYSTEM, "input"))
        prompt = "\n\n".join(filter(None, (system, instruction, context)))
        if not self.answered:
            return prompt, ""
        return prompt, _text(_at(record, "output", where, _KEY, _REMEDY), "output", where)


@dataclass(frozen=True)
class Conversation:
    """A list of turns, each with its speaker and its text, in either of the usual spellings.

    The prompt is the first question, below what the system says before it, since not every chat
    template has a place for that. The answer is the turn after it. Later turns are not read.
    """

    turns: str  # where they stand
    spelling: int  # which of the two messages speak of
    answered: bool

    def columns(self, names: Sequence[str], where: str) -> Sequence[str]:
        """As in `Fields`."""
        turns = _column(names, self.turns, where)
        return (turns, _SYSTEM) if _SYSTEM in names else (turns,)

    def read(self, record: Any, where: str) -> tuple[str, str]:
        """The first question, and the answer to it."""
        turns = _listed(_at(record, self.turns, where))
        if not isinstance(turns, list):
            raise Unusable(f"{_KEY}: {self.turns!r} in {where} is no list: {short(turns)}")
        told, at = [_perhaps(record, _SYSTEM, where)], 0
        while _turn(turns, at, *_SPEAKER) == _SYSTEM:
            if not _is_blank(_turn(turns, at, *_CONTENT)):
                told.append(self._said(turns, at, (_SYSTEM, _SYSTEM), where))
            at += 1
        question = self._said(turns, at, _ASKS, where)
        prompt = "\n\n".join([*dict.fromkeys(filter(None, told)), question])
        if not self.answered:
            return prompt, ""
        return prompt, self._said(turns, at + 1, _ANSWERS, where, _REMEDY)

    def _said(
        self, turns: list[Any], at: int, by: tuple[str, str], where: str, remedy: str = "mend it"
    ) -> str:
        """What a turn says, which must be of speaker `by`."""
        speaker = _turn(turns, at, *_SPEAKER)
        if speaker not in by:
            found = f"is by {short(speaker)}" if at < len(turns) else "is not there"
            must = by[self.spelling]
            raise Unusable(
                f"{_KEY}: {self.turns}.{at} in {where} {found}, but must be by {must!r}", remedy
            )
        name = next((name for name in _CONTENT if name in turns[at]), _CONTENT[self.spelling])
        return _text(_joined(turns[at].get(name)), f"{self.turns}.{at}.{name}", where)


Reader = Fields | Alpaca | Conversation


def reader(form: Format, prompt: str, answer: str, answered: bool) -> Reader:
    """What reads the records of a format.

    Args:
        form: the format.
        prompt: the name of a record's field, dotted where it lies deeper; for `fields` alone.
        answer: the same of the answer.
        answered: whether answers are wanted.
    """
    match form:
        case "fields":
            return Fields(prompt, answer, answered)
        case "alpaca":
            return Alpaca(answered)
        case "openhermes":
            return Conversation("conversations", 0, answered)
        case "messages":
            return Conversation("messages", 1, answered)


def _column(
    names: Sequence[str], path: str, where: str, key: str = _KEY, remedy: str = "mend it"
) -> str:
    """The column of a table that a dotted path begins with."""
    if (found := _beginning(path, names)) is None:
        raise _missing(path, dict.fromkeys(names), where, key, remedy)
    return found


def _beginning(path: str, names: Container[str]) -> str | None:
    """The longest beginning of a dotted path that is a name, since names may hold dots, too."""
    while path not in names:
        path, dot, _ = path.rpartition(".")
        if not dot:
            return None
    return path


def _at(record: Any, path: str, where: str, key: str = _KEY, remedy: str = "mend it") -> Any:
    """Follow a dotted path into a record."""
    value, left = record, path
    while True:
        if isinstance(value, dict):
            name = _beginning(left, value)
        else:
            name = left.partition(".")[0] if _is_index(left, value) else None
        if name is None:
            raise _missing(path, record, where, key, remedy)
        value = value[name] if isinstance(value, dict) else value[int(name)]
        if name == left:
            return value
        left = left[len(name) + 1 :]


def _is_index(path: str, value: Any) -> bool:
    """Whether a dotted path begins with the number of an element."""
    part = path.partition(".")[0]
    fits = isinstance(value, list) and part.isdecimal() and len(part) < 10
    return fits and int(part) < len(value)


def _missing(path: str, record: Any, where: str, key: str, remedy: str) -> Unusable:
    known = ", ".join(record) if isinstance(record, dict) else type(record).__name__
    return Unusable(f"{key}: {path!r} is not in {where}; it has {known}", remedy)


def _turn(turns: list[Any], at: int, *names: str) -> Any:
    """What a turn has under the first of `names` that it has; None without any, or such a turn."""
    turn = turns[at] if at < len(turns) else None
    return next((turn[n] for n in names if n in turn), None) if isinstance(turn, dict) else None


def _listed(turns: Any) -> Any:
    """Turns that stand as lists of speakers and of texts, as turns; others as they are."""
    if not isinstance(turns, dict) or not all(isinstance(said, list) for said in turns.values()):
        return turns
    if len({len(said) for said in turns.values()}) != 1:
        return turns
    return [dict(zip(turns, turn, strict=True)) for turn in zip(*turns.values(), strict=True)]


def _joined(content: Any) -> Any:
    """Parts of a turn that are all text, a line each or more; others as they are."""
    if not isinstance(content, list) or not content:
        return content
    if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return content
    texts = [part.get("text") for part in content]
    return "\n".join(texts) if all(isinstance(text, str) for text in texts) else content


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _perhaps(record: dict[str, Any], name: str, where: str) -> str:
    """A text that need not be there; "" if it is not, or blank."""
    value = record.get(name)
    return "" if _is_blank(value) else _text(value, name, where)


def _text(value: Any, name: str, where: str, key: str = _KEY) -> str:
    """A text that is not blank."""
    if not isinstance(value, str) or not value.strip() or _HALF_CHARACTER.search(value):
        reason: Literal["blank", "broken"] = "blank" if _is_blank(value) else "broken"
        remedy = "write it as text" if isinstance(value, int | float) else "mend it"
        raise Unusable(f"{key}: {name!r} in {where} is no text: {short(value)}", remedy, reason)
    return value
