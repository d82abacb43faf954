"""Words: their forms, kinds, opposites and translations; sentences to repeat."""

from __future__ import annotations

from jaxorg.data.families import Family, TaskInstance
from jaxorg.data.items import Dice
from jaxorg.data.natural import lexicon


def _sentence(dice: Dice) -> str:
    """A plain sentence of a few words."""
    name, thing, room = (
        dice.pick(lexicon.NAMES),
        dice.pick(lexicon.OBJECTS),
        dice.pick(lexicon.ROOMS),
    )
    color, day = dice.pick(lexicon.COLORS), dice.pick(lexicon.DAYS)
    return dice.pick(
        (
            f"{name} left the {thing} in the {room}",
            f"the {color} {thing} belongs to {name}",
            f"on {day} {name} will clean the {room}",
            f"{name} painted the {room} {color}",
            f"the {thing} fell on the floor of the {room}",
        )
    )


def _copied(dice: Dice) -> TaskInstance:
    sentence = _sentence(dice)
    return TaskInstance({"sentence": sentence}, sentence)


def _opposite(dice: Dice) -> TaskInstance:
    pair = dice.pick(lexicon.OPPOSITES)
    at, name = dice.below(2), dice.pick(lexicon.NAMES)
    return TaskInstance({"word": pair[at], "name": name}, pair[1 - at])


def _past(dice: Dice) -> TaskInstance:
    now, then = dice.pick(lexicon.PAST)
    return TaskInstance({"word": now, "name": dice.pick(lexicon.NAMES)}, then)


def _plural(dice: Dice) -> TaskInstance:
    one, many = dice.pick(lexicon.PLURALS)
    return TaskInstance({"word": one, "name": dice.pick(lexicon.NAMES)}, many)


def _kind(dice: Dice) -> TaskInstance:
    kind, *others = dice.sample(tuple(lexicon.KINDS), 3)
    answer = dice.pick(lexicon.KINDS[kind])
    words = dice.sample([answer, *(dice.pick(lexicon.KINDS[other]) for other in others)], 3)
    return TaskInstance({"kind": kind, "words": ", ".join(words)}, answer)


def _is_kind(dice: Dice) -> TaskInstance:
    kind, other = dice.sample(tuple(lexicon.KINDS), 2)
    yes = dice.below(2) == 1
    word = dice.pick(lexicon.KINDS[kind if yes else other])
    return TaskInstance({"word": word, "kind": kind}, "yes" if yes else "no")


def _capital(dice: Dice) -> TaskInstance:
    country, capital = dice.pick(lexicon.CAPITALS)
    return TaskInstance({"country": country, "name": dice.pick(lexicon.NAMES)}, capital)


def _to_english(dice: Dice) -> TaskInstance:
    english = dice.pick(tuple(lexicon.TRANSLATED))
    language = dice.pick(tuple(lexicon.TRANSLATED[english]))
    word, name = lexicon.TRANSLATED[english][language], dice.pick(lexicon.NAMES)
    fields = {"language": language, "word": word, "name": name}
    return TaskInstance(fields, english)


def _from_english(dice: Dice) -> TaskInstance:
    english = dice.pick(tuple(lexicon.TRANSLATED))
    language = dice.pick(tuple(lexicon.TRANSLATED[english]))
    fields = {"language": language, "word": english, "name": dice.pick(lexicon.NAMES)}
    return TaskInstance(fields, lexicon.TRANSLATED[english][language])


FAMILIES = (
    Family(
        "copy",
        (
            "Repeat this sentence: {sentence}",
            "Say this again, word for word: {sentence}",
            "Copy the following: {sentence}",
        ),
        _copied,
    ),
    Family(
        "opposite",
        (
            "{name} asks: what is the opposite of {word}?",
            '{name} needs a word that means the opposite of "{word}". Which one?',
            "{name} does not mean {word}, but the opposite. Which word does {name} mean?",
        ),
        _opposite,
    ),
    Family(
        "past",
        (
            '{name} asks: what is the past tense of the verb "{word}"?',
            'Help {name} to put the verb "to {word}" into the simple past.',
            'Today we {word}, says {name}. Which form of "{word}" is used for yesterday?',
        ),
        _past,
    ),
    Family(
        "plural",
        (
            '{name} asks: what is the plural of "{word}"?',
            "{name} saw one {word}, then two of them. Which word is used for two?",
            "{name} has more than one {word}. Write the plural of {word}.",
        ),
        _plural,
    ),
    Family(
        "kind",
        (
            "Which of these is a {kind}: {words}?",
            "Name the {kind} in this list: {words}",
            "{words}. Only one of these is a {kind}. Which one?",
        ),
        _kind,
    ),
    Family(
        "is kind",
        (
            'Is "{word}" a {kind}? Answer yes or no.',
            "Yes or no: {word} is a {kind}.",
            "Would you call {word} a {kind}? Say yes or no.",
        ),
        _is_kind,
    ),
    Family(
        "capital",
        (
            "{name} asks: what is the capital of {country}?",
            "{name} travels to the capital of {country}. Which city is that?",
            "Tell {name} the name of the capital city of {country}.",
        ),
        _capital,
    ),
    Family(
        "to English",
        (
            '{name} asks: what does the {language} word "{word}" mean in English?',
            'Translate the {language} word "{word}" into English for {name}.',
            '{name} says "{word}", which is {language}. What is it in English?',
        ),
        _to_english,
    ),
    Family(
        "from English",
        (
            '{name} asks: what is the {language} word for "{word}"?',
            'Translate "{word}" into {language} for {name}.',
            'How does {name} say "{word}" in {language}?',
        ),
        _from_english,
    ),
)
