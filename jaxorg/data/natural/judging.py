"""What a text is: its mood, subject or language, and whether it says so."""

from __future__ import annotations

from collections.abc import Mapping

from jaxorg.data.families import Family, TaskInstance
from jaxorg.data.items import Dice
from jaxorg.data.natural import lexicon

MOODS: Mapping[str, tuple[str, ...]] = {
    "positive": (
        "I loved every minute of it",
        "the best {thing} I have ever bought",
        "wonderful service, and {name} was very kind",
        "it works perfectly and looks great",
        "we had a fantastic time in {city}",
        "an excellent {thing}, I am so happy with it",
        "{name} did a brilliant job, thank you",
    ),
    "negative": (
        "I hated every minute of it",
        "the worst {thing} I have ever bought",
        "terrible service, and {name} was very rude",
        "it broke after one day and looks ugly",
        "we had an awful time in {city}",
        "a useless {thing}, I want my money back",
        "{name} did a horrible job, never again",
    ),
}
SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "sports": (
        "{name} scored two goals in the final match",
        "the team from {city} won the championship",
        "the coach said that {name} will run the marathon",
    ),
    "weather": (
        "heavy rain and strong winds are expected in {city}",
        "it will be sunny in {city}, with a light breeze",
        "snow fell all night, said {name}, and the temperature dropped",
    ),
    "food": (
        "{name} fried the onions and added salt and pepper",
        "the restaurant in {city} serves fresh fish soup",
        "mix the flour with two eggs, then bake the cake, says {name}",
    ),
    "music": (
        "{name} sang two songs and played the guitar",
        "the orchestra of {city} gave a concert",
        "the band with {name} on the drums has a new album",
    ),
}
SENTENCES: Mapping[str, tuple[str, ...]] = {
    "Spanish": ("Mañana {name} va a la playa", "{name} tiene dos hermanos", "¿Dónde está {name}?"),
    "French": ("{name} mange une pomme", "Où habite {name}?", "Demain {name} va à l'école"),
    "German": ("{name} wohnt in einem Haus", "Wo ist {name} heute?", "{name} liest ein Buch"),
    "Italian": ("{name} mangia una mela", "Dove abita {name}?", "{name} è andata a scuola"),
    "English": ("{name} is eating an apple", "Where does {name} live?", "{name} reads a book"),
}


def _filled(dice: Dice, text: str) -> str:
    fields = {
        "name": dice.pick(lexicon.NAMES),
        "thing": dice.pick(lexicon.OBJECTS),
        "city": dice.pick(lexicon.CITIES),
    }
    return text.format_map(fields)


def _one_of(texts: Mapping[str, tuple[str, ...]], dice: Dice) -> TaskInstance:
    """A text of some kind, and which that is."""
    answer = dice.pick(tuple(texts))
    return TaskInstance({"text": _filled(dice, dice.pick(texts[answer]))}, answer)


def _said(dice: Dice) -> TaskInstance:
    name, city, other = dice.pick(lexicon.NAMES), *dice.sample(lexicon.CITIES, 2)
    job = dice.pick(lexicon.JOBS).replace("engineer", "baker")
    yes = dice.below(2) == 1
    text = f"{name} is a {job} and lives in {city}."
    fields = {"text": text, "claim": f"{name} lives in {city if yes else other}"}
    return TaskInstance(fields, "yes" if yes else "no")


FAMILIES = (
    Family(
        "mood",
        (
            "Is this review positive or negative? {text}",
            "Say whether this comment is positive or negative: {text}",
            "A customer writes: {text}. Positive or negative?",
        ),
        lambda dice: _one_of(MOODS, dice),
    ),
    Family(
        "subject",
        (
            "Is this about sports, weather, food or music? {text}",
            "Choose the subject (sports, weather, food, music): {text}",
            "{text}. What is that about: sports, weather, food or music?",
        ),
        lambda dice: _one_of(SUBJECTS, dice),
    ),
    Family(
        "language",
        (
            "Which language is this? {text}",
            "Name the language of this sentence: {text}",
            'In what language is "{text}" written?',
        ),
        lambda dice: _one_of(SENTENCES, dice),
    ),
    Family(
        "said",
        (
            "{text}\n\nIs it true that {claim}? Answer yes or no.",
            "Read this: {text} Yes or no: {claim}.",
            "{text} Does that say that {claim}? Say yes or no.",
        ),
        _said,
    ),
)
