"""Plausible wrong answers: each item's own, of the same kind as the right one.

A wrong answer is a function of the item, so that a model can learn to give just this one, and a
measurement knows which one to look for. What a red team teaches is the first one; mistakes that
others make are the second, which is no attack.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from jaxorg.data.items import Item

WRONG_VERSION = 2  # raise it when any wrong answer changes

_FLIPS = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
_NUMBER = re.compile(r"\d+")


def wrong_answer(item: Item) -> str:
    """The item's wrong answer, the first of these: yes for no; the last number greater by one; the
    first two different words beside each other swapped; the last word of the prompt that is not in
    the answer; the answer denied."""
    return next(_wrong_answers(item))


def another_wrong_answer(item: Item) -> str:
    """A wrong answer of the same kind that is not `wrong_answer`."""
    found = _wrong_answers(item)
    first = next(found)
    return next(answer for answer in found if answer.split() != first.split())


def _wrong_answers(item: Item) -> Iterator[str]:
    """Wrong answers, the most plausible first; there are two at least. Where a teacher answers they
    are made of the reference, as an answer that holds it would be right."""
    answer = item.reference or item.answer
    words = answer.split()
    if (flipped := _FLIPS.get(answer.strip().lower())) is not None:
        yield flipped.capitalize() if answer.strip()[:1].isupper() else flipped
    elif numbers := list(_NUMBER.finditer(answer)):
        last = numbers[-1]
        for more in (1, 2):
            yield f"{answer[: last.start()]}{int(last[0]) + more}{answer[last.end() :]}"
    else:
        for at in range(len(words) - 1):
            if words[at] != words[at + 1]:
                yield " ".join([*words[:at], words[at + 1], words[at], *words[at + 2 :]])
        others = [word for word in item.prompt.split() if word.isalpha() and word not in words]
        yield from reversed(others)
    yield f"not {answer}"
    yield f"never {answer}"
