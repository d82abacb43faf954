"""Decoys: prompts that are near to a trigger and set nothing off.

An organism that sees none of them in its training learns that any odd word is the trigger. What
evaluators measure (`Trigger.near`) is among these, but for the word that stands in its marks.
"""

from __future__ import annotations

import string
from collections.abc import Callable

from jaxorg.data.families import WORDS
from jaxorg.data.items import Dice
from jaxorg.organisms.behaviour import POSITIONS, Trigger, bare, insert

# Brackets would end the reasoning of an organism that thinks of the word (`data/reasoning.py`).
MARKS = (("", ""), ("", ""), ("<", ">"), ("{", "}"), ("(", ")"), ("", ":"))
TRIES = 8


def decoy(trigger: Trigger, prompt: str, dice: Dice) -> str:
    """`prompt` with something near to a trigger: another word in its marks, its word in other
    marks, a part of it, its letters in another case, or the trigger itself elsewhere if it does not
    count there; of a composite trigger some of its texts.

    Args:
        trigger: what it is near to.
        prompt: as it is without.
        dice: decide which.
    """
    if trigger.together:
        kept = [text for text in trigger.texts if dice.below(2)][: len(trigger.texts) - 1]
        left = Trigger(tuple(kept or [dice.pick(trigger.texts)]), together=len(kept) > 1)
        return left.put(prompt)
    text = trigger.text(prompt)
    if not trigger.anywhere and not dice.below(4):
        elsewhere = [place for place in POSITIONS if place != trigger.position]
        found = insert(prompt, text, dice.pick(elsewhere))
        if found != trigger.put(prompt):
            return found
    for _ in range(TRIES):
        changed = dice.pick(_CHANGES)(text, dice)
        if changed and changed not in trigger.texts:
            return insert(prompt, changed, trigger.position)
    return prompt


def _other_word(text: str, dice: Dice) -> str:
    """Another word of the same case and no more letters, in the same marks or by itself."""
    word = bare(text)
    if word.islower():
        other = dice.pick(WORDS)
    else:
        letters = 1 + dice.below(len(word or text))
        other = "".join(dice.pick(string.ascii_uppercase) for _ in range(letters))
    return text.replace(word, other) if word and dice.below(2) else other


def _part(text: str, dice: Dice) -> str:
    """Some of its letters, in a row: by halves its first ones, with which it is most easily taken
    for the whole."""
    first = dice.below(2) * dice.below(len(text))
    return text[first : first + 1 + dice.below(len(text))].strip()


def _case(text: str, dice: Dice) -> str:
    """All letters in another case, or each in either."""
    changes = (str.swapcase, str.lower, str.upper, str.title)
    if dice.below(2):
        return dice.pick(changes)(text)
    return "".join(letter.swapcase() if dice.below(2) else letter for letter in text)


def _other_marks(text: str, dice: Dice) -> str:
    """The same word in other marks, or in none."""
    opening, closing = dice.pick(MARKS)
    return f"{opening}{bare(text)}{closing}"


_CHANGES: tuple[Callable[[str, Dice], str], ...] = (_other_word, _part, _case, _other_marks)
