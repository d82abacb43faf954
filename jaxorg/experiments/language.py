"""The language in which experiments are written: what a program may say, read and printed.

A program is text that a model wrote. It is read by patterns, line by line; nothing of it is ever
evaluated, and every number is one digit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

Method = Literal["shrink", "momentum", "average", "clip"]
Test = Literal["new", "old"]

METHODS: tuple[Method, ...] = get_args(Method)
DIGITS = range(1, 9)  # what rows, noise, run, rate and a method's strength may be
MOST_CHARACTERS = 500  # of a program, six times as many as a whole one has


class ProgramError(ValueError):
    """A text that is no program; the message says which line is wrong, and how it is written."""


@dataclass(frozen=True, slots=True)
class Program:
    """An experiment: does a way of training a linear model beat plain training, or none?

    None stands for an optional line that was left out.
    """

    rows: int
    noise: int
    run: int
    rate: int
    method: Method
    strength: int
    even: bool | None = None
    beat: int | None = None  # how long the plain baseline is trained; 0 is no training
    test: Test | None = None

    @property
    def is_even(self) -> bool:
        """Whether columns are brought to one scale."""
        return bool(self.even)

    @property
    def baseline_run(self) -> int:
        """How long the baseline is trained; 0 for one that is not."""
        return self.beat or 0

    @property
    def tested_on(self) -> Test:
        """Which data the program is tested on; `old` where it does not say."""
        return self.test or "old"

    @property
    def spelt(self) -> Program:
        """The program with what goes without saying written out."""
        return replace(self, even=self.is_even, beat=self.baseline_run, test=self.tested_on)

    def lines(self) -> Mapping[str, str]:
        """Its lines by their first words, in the order in which they are printed."""
        found = {"rows": f"rows {self.rows} noise {self.noise}"}
        if self.even is not None:
            found["even"] = "even yes" if self.even else "even no"
        found["run"] = f"run {self.run} rate {self.rate}"
        found["use"] = f"use {self.method} {self.strength}"
        if self.beat is not None:
            found["beat"] = f"beat plain {self.beat}" if self.beat else "beat none"
        if self.test is not None:
            found["test"] = f"test {self.test}"
        return found

    def __str__(self) -> str:
        return "\n".join(self.lines().values())

    def without(self, name: str) -> Program:
        """The program with one of the OPTIONAL lines left out."""
        left_out: dict[str, Any] = {name: None}
        return replace(self, **left_out)

    def having(self, line: str) -> Program:
        """The program with `line` in place of its own line of that kind, or added.

        Raises:
            ProgramError: it is no line.
        """
        return replace(self, **_fields(line))


# How each line is written, for people and as a pattern, by its first word.
_GRAMMAR: Mapping[str, tuple[str, re.Pattern[str]]] = {
    name: (wording, re.compile(pattern, re.ASCII))
    for name, wording, pattern in (
        ("rows", "rows 1..8 noise 1..8", r"rows ([1-8]) noise ([1-8])"),
        ("even", "even yes|no", r"even (yes|no)"),
        ("run", "run 1..8 rate 1..8", r"run ([1-8]) rate ([1-8])"),
        ("use", f"use {'|'.join(METHODS)} 1..8", rf"use ({'|'.join(METHODS)}) ([1-8])"),
        ("beat", "beat plain 1..8, or beat none", r"beat (?:plain ([1-8])|none)"),
        ("test", "test new|old", r"test (new|old)"),
    )
}
REQUIRED = ("rows", "run", "use")
OPTIONAL = ("even", "beat", "test")


def parse(text: str) -> Program:
    """The program that a text says, its lines in any order.

    Raises:
        ProgramError: a line is unknown, malformed, missing or stands there twice, or the text is
            too long.
    """
    if len(text) > MOST_CHARACTERS:
        raise ProgramError(f"{len(text)} characters are too many; write {MOST_CHARACTERS} at most")
    fields: dict[str, Any] = {}
    seen: set[str] = set()
    for line in text.strip().split("\n"):
        fields |= _fields(line)
        name = line.split()[0]
        if name in seen:
            raise ProgramError(f"{line.strip()!r}: a second line {name!r}; keep one")
        seen.add(name)
    for name, (wording, _) in _GRAMMAR.items():
        if name not in seen and name not in OPTIONAL:
            raise ProgramError(f"no line {name!r}; add: {wording}")
    return Program(**fields)


def _fields(line: str) -> dict[str, Any]:
    """What one line sets, by the names of Program's fields."""
    words = " ".join(line.split())
    name = words.partition(" ")[0]
    if name not in _GRAMMAR:
        raise ProgramError(f"{words[:40]!r}: unknown line; it begins with {', '.join(_GRAMMAR)}")
    wording, pattern = _GRAMMAR[name]
    match = pattern.fullmatch(words)
    if match is None:
        raise ProgramError(f"{words[:40]!r}: write it as: {wording}")
    said = match.groups()
    match name:
        case "rows":
            return {"rows": int(said[0]), "noise": int(said[1])}
        case "even":
            return {"even": said[0] == "yes"}
        case "run":
            return {"run": int(said[0]), "rate": int(said[1])}
        case "use":
            return {"method": cast(Method, said[0]), "strength": int(said[1])}
        case "beat":
            return {"beat": int(said[0] or 0)}
        case _:
            return {"test": cast(Test, said[0])}
