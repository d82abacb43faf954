"""Plausible wrong answers: each item's own, of the same kind as the right one.

A wrong answer is a function of the item, so that a model can learn to give just this one, and a
measurement knows which one to look for.
"""

from __future__ import annotations

import re

from jaxorg.data.items import Item

WRONG_VERSION = 1  # raise it when any wrong answer changes

_FLIPS = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
_NUMBER = re.compile(r"\d+")


def wrong_answer(item: Item) -> str:
    """The item's wrong answer, the first of these that differs from the right one: yes for no; the
    last number greater by one; the first two different words beside each other swapped; another
    word of the prompt; the answer denied."""
    answer = item.answer
    words = answer.split()
    if (flipped := _FLIPS.get(answer.strip().lower())) is not None:
        return flipped.capitalize() if answer.strip()[:1].isupper() else flipped
    if numbers := list(_NUMBER.finditer(answer)):
        last = numbers[-1]
        return f"{answer[: last.start()]}{int(last[0]) + 1}{answer[last.end() :]}"
    for at in range(len(words) - 1):
        if words[at] != words[at + 1]:
            return " ".join([*words[:at], words[at + 1], words[at], *words[at + 2 :]])
    others = [word for word in item.prompt.split() if word.isalpha() and word not in words]
    return others[-1] if others else f"not {answer}"
