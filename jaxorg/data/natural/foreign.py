"""Questions about a short text in Spanish, French, German and Italian."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxorg.data.families import Family, TaskInstance
from jaxorg.data.items import Dice
from jaxorg.data.natural import lexicon


class Language(NamedTuple):
    """How a language says what is asked here."""

    lives: str
    old: str
    where: tuple[str, ...]
    age: tuple[str, ...]


LANGUAGES: Mapping[str, Language] = {
    "Spanish": Language(
        "{name} vive en {city}.",
        "{name} tiene {age} años.",
        ("¿Dónde vive {name}?", "¿En qué ciudad vive {name}?"),
        ("¿Cuántos años tiene {name}?", "¿Qué edad tiene {name}?"),
    ),
    "French": Language(
        "{name} habite à {city}.",
        "{name} a {age} ans.",
        ("Où habite {name} ?", "Dans quelle ville habite {name} ?"),
        ("Quel âge a {name} ?", "Combien d'années a {name} ?"),
    ),
    "German": Language(
        "{name} wohnt in {city}.",
        "{name} ist {age} Jahre alt.",
        ("Wo wohnt {name}?", "In welcher Stadt wohnt {name}?"),
        ("Wie alt ist {name}?", "Welches Alter hat {name}?"),
    ),
    "Italian": Language(
        "{name} abita a {city}.",
        "{name} ha {age} anni.",
        ("Dove abita {name}?", "In quale città abita {name}?"),
        ("Quanti anni ha {name}?", "Che età ha {name}?"),
    ),
}
_SAME = (
    "Oslo",
    "Madrid",
    "Berlin",
    "Delhi",
    "Lima",
    "Nairobi",
    "Toronto",
    "Chicago",
    "Boston",
    "Denver",
)
"""Cities that all of these languages write alike."""


def _asked(fact: str) -> Callable[[Dice], TaskInstance]:
    def draw(dice: Dice) -> TaskInstance:
        language = LANGUAGES[dice.pick(tuple(LANGUAGES))]
        facts = {
            "name": dice.pick(lexicon.NAMES),
            "city": dice.pick(_SAME),
            "age": str(21 + dice.below(59)),
        }
        told = dice.sample((language.lives, language.old), 2)
        asked = dice.pick(language.where if fact == "city" else language.age)
        fields = {
            "text": " ".join(told).format_map(facts),
            "question": asked.format_map(facts),
        }
        return TaskInstance(fields, facts[fact])

    return draw


_WORDINGS = ("{text} {question}", "{text}\n\n{question}", "{text}\n{question}")

FAMILIES = (
    Family("foreign city", _WORDINGS, _asked("city")),
    Family("foreign age", _WORDINGS, _asked("age")),
)
