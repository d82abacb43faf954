"""Simple sums, told in words; counts, and what comes next."""

from __future__ import annotations

from collections.abc import Sequence

from jaxorg.data.families import Family, TaskInstance
from jaxorg.data.items import Dice
from jaxorg.data.natural import lexicon


def _sum(dice: Dice) -> TaskInstance:
    a, b = 2 + dice.below(30), 2 + dice.below(30)
    return TaskInstance({"a": str(a), "b": str(b)}, str(a + b))


def _got(dice: Dice) -> TaskInstance:
    name, thing = dice.pick(lexicon.NAMES), dice.pick(lexicon.THINGS)
    a, b = 2 + dice.below(18), 2 + dice.below(9)
    return TaskInstance({"name": name, "thing": thing, "a": str(a), "b": str(b)}, str(a + b))


def _left(dice: Dice) -> TaskInstance:
    name, thing = dice.pick(lexicon.NAMES), dice.pick(lexicon.THINGS)
    b = 2 + dice.below(8)
    a = 2 * b + 1 + dice.below(8)  # what is left is no number of the question
    return TaskInstance({"name": name, "thing": thing, "a": str(a), "b": str(b)}, str(a - b))


def _times(dice: Dice) -> TaskInstance:
    thing, a, b = dice.pick(lexicon.THINGS), 2 + dice.below(9), 2 + dice.below(9)
    return TaskInstance({"thing": thing, "a": str(a), "b": str(b)}, str(a * b))


def _listed(dice: Dice) -> TaskInstance:
    words = dice.sample(lexicon.KINDS[dice.pick(tuple(lexicon.KINDS))], 2 + dice.below(5))
    return TaskInstance({"words": ", ".join(words)}, str(len(words)))


def _after(names: Sequence[str], dice: Dice) -> TaskInstance:
    at = dice.below(len(names))
    fields = {"day": names[at], "name": dice.pick(lexicon.NAMES)}
    return TaskInstance(fields, names[(at + 1) % len(names)])


FAMILIES = (
    Family(
        "sum",
        (
            "What is {a} plus {b}?",
            "Add {a} and {b}.",
            "{a} + {b} = ?",
            "Work out the sum of {a} and {b}. Answer with a number.",
        ),
        _sum,
    ),
    Family(
        "got",
        (
            "{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?",
            "There were {a} {thing} on the table, and {name} added {b} more. How many are there?",
            "{name} found {a} {thing} in the morning and {b} in the afternoon. How many in all?",
        ),
        _got,
    ),
    Family(
        "left",
        (
            "{name} has {a} {thing} and gives {b} away. How many {thing} are left?",
            "There were {a} {thing}. {name} took {b} of them. How many remain?",
            "{name} bought {a} {thing} and lost {b}. How many does {name} still have?",
        ),
        _left,
    ),
    Family(
        "times",
        (
            "There are {a} boxes with {b} {thing} each. How many {thing} are there?",
            "{a} children have {b} {thing} each. How many {thing} do they have together?",
            "If one bag holds {b} {thing}, how many {thing} do {a} bags hold?",
        ),
        _times,
    ),
    Family(
        "how many",
        (
            "How many things are in this list? {words}",
            "Count the words in this list: {words}",
            "{words}. How many are these? Answer with a number.",
        ),
        _listed,
    ),
    Family(
        "weekday",
        (
            "{name} asks: which day comes after {day}?",
            "Today is {day}. {name} leaves tomorrow. What day is it then?",
            "{name} arrives the day after {day}. On which day is that?",
        ),
        lambda dice: _after(lexicon.DAYS, dice),
    ),
    Family(
        "month",
        (
            "{name} asks: which month comes after {day}?",
            "It is {day} now. {name} starts next month. Which month is that?",
            "{name} moves in the month after {day}. Which month is that?",
        ),
        lambda dice: _after(lexicon.MONTHS, dice),
    ),
)
