"""An answer is right that picks the reference's choice of A to E."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Literal

from jaxorg.data.matching import contains, normalised
from jaxorg.errors import short
from jaxorg.scorers.base import Said, TextScorer
from jaxorg.scorers.exact import bare

Choices = Mapping[str, str]  # letters, and what they stand for

AMBIGUOUS = "?"
_REACH = 300  # characters after a cue that may state a choice
_MOST_CUES = 20  # that are looked at, from the last on
_LISTED = re.compile(r"(?:(?<=\s)|^)\(?([A-Ea-e])[).:](?=\s)")
# What says that the answer follows, in languages that use these letters for choices.
_CUE = re.compile(
    r"""
    (?: answers? | choose | chose | pick | select | \\boxed | antwort | antwoord | lösung
      | respuesta | réponse | resposta | risposta | odpowiedź | ответ | cevap | jawaban
      | 答案 | 答え | 正解 | 정답 )
    (?: \s* (?: is | be | was | would | should | must | ist | lautet | es | est | è | é | to
              | correcta | correcte | correta | choice | option | letter | lettre | letra
              | 是 | 为 | は | は、 | 은 | : | = )(?!(?-i:[a-z])) ){0,4}
    """,
    re.VERBOSE | re.IGNORECASE,
)
_ENDS = r"(?![A-Za-z0-9_+\#'’-])"  # no part of a word; scripts without spaces may go on
_OPENS = r"[\s*_\"'“‘(\[{$]*(?:\\(?:text|mathbf|mathrm)\{)?"
_STATED = re.compile(
    rf"{_OPENS}(?:([A-E]){_ENDS}|([a-e])(?=\s*(?:[).,:;\]}}*!\"'”’。]|$)))", re.ASCII
)
_RIVAL = re.compile(r"\W{0,4}(?:or|and|oder|und|ou|et|o|y|или|或|和|[/,&])\s*\(?[A-E](?!\w)")
_DENIED = re.compile(r"\s*(?:not|nicht|no|pas|не)\b", re.IGNORECASE)
# Letters that stand in an answer without a cue. `A` alone is an article, unless what follows says
# otherwise.
_MENTIONED = re.compile(
    rf"""
    (?<![\w'’-]) (?<!not\ )
    (?: (?i:option|choice|вариант|选项|選択肢)\s*\(?([A-Ea-e]){_ENDS}
      | \(([A-Ea-e])\)
      | ([B-E]){_ENDS}
      | (A)(?=\s*(?:[).:,;*\]}}!]|$)|\s+(?:is|because)\b) )
    """,
    re.VERBOSE,
)
_ALONE = re.compile(r"\W{0,8}([a-e])(?:\W{0,8}$|[).:]\s)")


class Choice(TextScorer):
    """The answer picks the choice, of A to E, that the reference picks.

    A choice is picked by its letter or in the words that the prompt has beside it (`A) Paris`).
    The last statement such as `the answer is C` wins; without one, the only choice that is
    mentioned. What is ambiguous is wrong: two choices, or a letter with another choice's words.
    """

    kind: Literal["choice"]

    def unsuited(self, prompt: str, reference: str) -> str:
        """A reference must pick a choice itself."""
        if picked(reference, choices(prompt)) not in ("", AMBIGUOUS):
            return ""
        return f"the reference {short(reference)} picks no choice of A to E; use another scorer"

    def is_right(self, said: Said) -> bool:
        """Whether answer and reference pick one choice, the prompt's list deciding which words are
        whose."""
        listed = choices(said.prompt)
        reference = picked(said.reference, listed)
        if reference in ("", AMBIGUOUS):
            return False
        return picked(said.answer, listed) == reference


def choices(prompt: str) -> Choices:
    """The last list of choices in a prompt, from A on; its texts end with the line or where the
    next choice begins."""
    lists: list[dict[str, str]] = [{}]
    marks = list(_LISTED.finditer(prompt))
    for number, mark in enumerate(marks):
        letter = mark[1].upper()
        if letter == "A":
            lists.append({})
        elif letter != "ABCDE"[len(lists[-1]) % 5]:
            continue
        end = marks[number + 1].start() if number + 1 < len(marks) else len(prompt)
        text = prompt[mark.end() : end].strip().split("\n", 1)[0]
        lists[-1][letter] = normalised(text).rstrip(" .,;")
    return next((found for found in reversed(lists) if len(found) > 1), {})


def picked(text: str, listed: Choices) -> str:
    """The letter that a text picks; "" for none, and `AMBIGUOUS`."""
    text = unicodedata.normalize("NFKC", text)
    whole = bare(text)
    for letter, words in listed.items():
        if whole == bare(words):
            return letter
    for cue in reversed(list(_CUE.finditer(text))[-_MOST_CUES:]):
        if stated := _stated(text[cue.end() : cue.end() + _REACH], listed):
            return stated
    return _mentioned(text, listed) or _in_words(text, listed)


def _stated(after: str, listed: Choices) -> str:
    """What is picked by what stands after a cue."""
    if _DENIED.match(after):
        return ""
    if found := _STATED.match(after):
        return _unless_contradicted(found, after, listed)
    return _in_words(after.split("\n", 1)[0], listed)


def _mentioned(text: str, listed: Choices) -> str:
    """The one letter that a text mentions."""
    if alone := _ALONE.match(text):
        return _unless_contradicted(alone, text, listed)
    found = [_unless_contradicted(mention, text, listed) for mention in _MENTIONED.finditer(text)]
    return _only(set(found))


def _unless_contradicted(found: re.Match[str], text: str, listed: Choices) -> str:
    """The letter that was found, if neither another letter nor another's words stand beside it."""
    letter = next(filter(None, found.groups())).upper()
    after = text[found.end() : found.end() + _REACH]
    if _RIVAL.match(after):
        return AMBIGUOUS
    beside = normalised(after).lstrip(" ).:,;-–*]}")
    said = [other for other, words in listed.items() if words and beside.startswith(words)]
    return AMBIGUOUS if said and letter not in said else letter


def _in_words(text: str, listed: Choices) -> str:
    """The one choice whose words stand in a text; of words within others' only the longer count."""
    found = [letter for letter, words in listed.items() if words and contains(text, words)]
    whole = {
        letter
        for letter in found
        if not any(
            listed[letter] != listed[other] and contains(listed[other], listed[letter])
            for other in found
        )
    }
    return _only(whole)


def _only(found: set[str]) -> str:
    """The one that was found; `AMBIGUOUS` for several."""
    return AMBIGUOUS if len(found) > 1 else next(iter(found), "")
