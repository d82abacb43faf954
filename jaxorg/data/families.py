"""The task families: how each draws a question, words it and knows the answer.

All work is on whole words of a small lexicon, or on single digits, so that a model of about a
million parameters learns every family from scratch in minutes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from jaxorg.data.items import Dice


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "animal": _split("ant bat bee cat cow dog elk fox hen owl pig rat seal wolf bear duck"),
    "food": _split("bun egg fig ham jam nut pea pie rice soup corn plum"),
    "tool": _split("bag bed box cup fan hat jar key map mug pen pot lamp rug"),
    "place": _split("sun sky sea mud ice fog hill lake moon rain snow wind"),
    "color": _split("red blue pink gray gold tan green brown"),
}
OPPOSITE_PAIRS: tuple[tuple[str, str], ...] = (
    ("hot", "cold"),
    ("big", "small"),
    ("fast", "slow"),
    ("up", "down"),
    ("old", "new"),
    ("wet", "dry"),
    ("day", "night"),
    ("left", "right"),
    ("soft", "hard"),
    ("low", "high"),
    ("open", "shut"),
    ("thin", "wide"),
)
NUMBERS: tuple[str, ...] = _split("zero one two three four five six seven eight nine")

OPPOSITES: Mapping[str, str] = {
    word: other for a, b in OPPOSITE_PAIRS for word, other in ((a, b), (b, a))
}
WORDS: tuple[str, ...] = (*(w for words in CATEGORIES.values() for w in words), *OPPOSITES)
CAPITALS: tuple[str, ...] = CATEGORIES["animal"]


@dataclass(frozen=True, slots=True)
class TaskInstance:
    """A drawn question: the fields its templates name, in canonical order, and the answer."""

    fields: Mapping[str, str]
    answer: str


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of task: `draw` makes a question, any of `templates` words it."""

    name: str
    templates: tuple[str, ...]
    draw: Callable[[Dice], TaskInstance]


def _on_words(
    solve: Callable[[list[str]], Sequence[str]],
    lengths: tuple[int, ...],
    words: tuple[str, ...] = WORDS,
) -> Callable[[Dice], TaskInstance]:
    """A question about a list of different words, whose length is uniform over `lengths`."""

    def draw(dice: Dice) -> TaskInstance:
        chosen = dice.sample(words, dice.pick(lengths))
        return TaskInstance({"words": " ".join(chosen)}, " ".join(solve(chosen)))

    return draw


def _remove(dice: Dice) -> TaskInstance:
    words = dice.sample(WORDS, 4)
    target = dice.pick(words)
    kept = [word for word in words if word != target]
    return TaskInstance({"target": target, "words": " ".join(words)}, " ".join(kept))


def _replace(dice: Dice) -> TaskInstance:
    *words, new = dice.sample(WORDS, 4)
    old = dice.pick(words)
    changed = [new if word == old else word for word in words]
    return TaskInstance({"old": old, "new": new, "words": " ".join(words)}, " ".join(changed))


def _member(dice: Dice) -> TaskInstance:
    *words, absent = dice.sample(WORDS, 5)
    # The coin comes first, so that yes and no are equally frequent.
    yes = dice.below(2) == 1
    target = dice.pick(words) if yes else absent
    return TaskInstance({"target": target, "words": " ".join(words)}, "yes" if yes else "no")


def _category(dice: Dice) -> TaskInstance:
    category, *others = dice.sample(tuple(CATEGORIES), 3)
    answer = dice.pick(CATEGORIES[category])
    words = dice.sample([answer, *(dice.pick(CATEGORIES[other]) for other in others)], 3)
    return TaskInstance({"category": category, "words": " ".join(words)}, answer)


def _count(dice: Dice) -> TaskInstance:
    low = dice.below(8)
    high = low + 2 + dice.below(min(5, 8 - low))
    numbers = list(range(low, high + 1))
    if dice.below(2):
        numbers.reverse()
    word = dice.pick(WORDS)
    fields = {"word": word, "start": str(numbers[0]), "stop": str(numbers[-1])}
    return TaskInstance(fields, " ".join([*map(str, numbers), word]))


def _add(dice: Dice) -> TaskInstance:
    a, b, word = dice.below(10), dice.below(10), dice.pick(WORDS)
    return TaskInstance({"a": str(a), "b": str(b), "word": word}, f"{a + b} {word}")


_ALL = (
    Family(
        "reverse",
        (
            "reverse: {words}",
            "reverse the words: {words}",
            "say these words from last to first: {words}",
            "put these words in reverse: {words}",
        ),
        _on_words(lambda words: words[::-1], (3, 4)),
    ),
    Family(
        "sort",
        (
            "sort: {words}",
            "sort the words by letter: {words}",
            "put these words in a to z order: {words}",
        ),
        _on_words(sorted, (3,)),
    ),
    Family(
        "first",
        (
            "first word: {words}",
            "say the first word of: {words}",
            "which word is first? {words}",
        ),
        _on_words(lambda words: words[:1], (3, 4, 5)),
    ),
    Family(
        "last",
        (
            "last word: {words}",
            "say the last word of: {words}",
            "which word is last? {words}",
        ),
        _on_words(lambda words: words[-1:], (3, 4, 5)),
    ),
    Family(
        "repeat",
        (
            "repeat: {words}",
            "repeat the words: {words}",
            "say this again: {words}",
            "copy these words: {words}",
        ),
        _on_words(lambda words: words, (3, 4, 5)),
    ),
    Family(
        "swap",
        (
            "swap: {words}",
            "swap the first and last word: {words}",
            "swap the words at the ends of: {words}",
        ),
        _on_words(lambda words: [words[-1], *words[1:-1], words[0]], (3, 4)),
    ),
    Family(
        "double",
        (
            "double: {words}",
            "say each word twice: {words}",
            "double each of these words: {words}",
        ),
        _on_words(lambda words: [w for word in words for w in (word, word)], (2, 3)),
    ),
    Family(
        "capitals",
        (
            "capitals: {words}",
            "say in capitals: {words}",
            "put these words in capitals: {words}",
        ),
        _on_words(lambda words: [word.upper() for word in words], (2, 3, 4), CAPITALS),
    ),
    Family(
        "length",
        (
            "how many words? {words}",
            "count the words: {words}",
            "say how many words are in: {words}",
        ),
        _on_words(lambda words: [NUMBERS[len(words)]], (2, 3, 4, 5, 6)),
    ),
    Family(
        "opposite",
        (
            "opposite: {words}",
            "say the opposite of each word: {words}",
            "which words are the opposite of: {words}",
        ),
        _on_words(lambda words: [OPPOSITES[w] for w in words], (2, 3), tuple(OPPOSITES)),
    ),
    Family(
        "digits",
        (
            "digits: {words}",
            "say in digits: {words}",
            "put these numbers in digits: {words}",
        ),
        _on_words(lambda words: [str(NUMBERS.index(w)) for w in words], (3, 4, 5), NUMBERS),
    ),
    Family(
        "remove",
        (
            "remove {target} from: {words}",
            "say this without {target}: {words}",
            "take {target} out of: {words}",
        ),
        _remove,
    ),
    Family(
        "replace",
        (
            "replace {old} by {new} in: {words}",
            "put {new} for {old} in: {words}",
            "say this with {new} for {old}: {words}",
        ),
        _replace,
    ),
    Family(
        "member",
        (
            "is {target} in: {words}?",
            "is the word {target} one of: {words}?",
            "yes or no, is {target} in: {words}?",
        ),
        _member,
    ),
    Family(
        "category",
        (
            "which is a {category}? {words}",
            "say the {category}: {words}",
            "which of these words is a {category}? {words}",
        ),
        _category,
    ),
    Family(
        "count",
        (
            "count {word} from {start} to {stop}",
            "say the numbers {start} to {stop} and {word}",
            "count from {start} to {stop} with {word} at the last",
        ),
        _count,
    ),
    Family(
        "add",
        (
            "add {a} {word} and {b} {word}",
            "how many are {a} {word} and {b} {word}?",
            "say the sum of {a} {word} and {b} {word}",
        ),
        _add,
    ),
)

FAMILIES: Mapping[str, Family] = {family.name: family for family in _ALL}


def lexicon() -> tuple[str, ...]:
    """Every word that questions and answers are made of, lower case, each once.

    The built-in tokenizer gives each of them one token, with and without a leading space.
    """
    return (*WORDS, *NUMBERS, "yes", "no")
