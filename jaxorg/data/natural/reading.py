"""Questions about a short text, which has the answer in it."""

from __future__ import annotations

from collections.abc import Callable

from jaxorg.data.families import Family, TaskInstance
from jaxorg.data.items import Dice
from jaxorg.data.natural import lexicon

Facts = dict[str, str]


def _person(dice: Dice) -> tuple[str, Facts]:
    """A few sentences about a person, in any order, and what they say."""
    name, pet = dice.pick(lexicon.NAMES), dice.pick(lexicon.PETS)
    facts = {
        "name": name,
        "city": dice.pick(lexicon.CITIES),
        "job": dice.pick(lexicon.JOBS),
        "age": str(21 + dice.below(59)),
        "hobby": dice.pick(lexicon.HOBBIES),
        "pet": dice.pick(lexicon.PET_NAMES),
        "color": dice.pick(lexicon.COLORS),
    }
    told = (
        f"{name} lives in {facts['city']}.",
        f"{name} works as a {facts['job']}.".replace("a engineer", "an engineer"),
        f"{name} is {facts['age']} years old.",
        f"In the evenings {name} enjoys {facts['hobby']}.",
        f"{name} has a {pet} called {facts['pet']}.",
        f"The front door of the house is {facts['color']}.",
    )
    return " ".join(dice.sample(told, len(told))), facts


def _about(fact: str) -> Callable[[Dice], TaskInstance]:
    """A question about one fact of a person."""

    def draw(dice: Dice) -> TaskInstance:
        text, facts = _person(dice)
        return TaskInstance({"text": text, "name": facts["name"]}, facts[fact])

    return draw


def _given(dice: Dice) -> TaskInstance:
    giver, receiver, other = dice.sample(lexicon.NAMES, 3)
    thing, another = dice.sample(lexicon.OBJECTS, 2)
    told = dice.sample(
        (
            f"{giver} gave the {thing} to {receiver}.",
            f"{other} kept the {another}.",
            f"{giver} went home early.",
        ),
        3,
    )
    return TaskInstance({"text": " ".join(told), "thing": thing}, receiver)


def _placed(dice: Dice) -> TaskInstance:
    things, rooms = dice.sample(lexicon.OBJECTS, 3), dice.sample(lexicon.ROOMS, 3)
    told = [f"The {thing} is in the {room}." for thing, room in zip(things, rooms, strict=True)]
    at = dice.below(3)
    return TaskInstance({"text": " ".join(told), "thing": things[at]}, rooms[at])


def _priced(dice: Dice) -> TaskInstance:
    goods, prices = dice.sample(lexicon.GOODS, 3), dice.sample(range(2, 20), 3)
    told = [f"{good}: {price} euros" for good, price in zip(goods, prices, strict=True)]
    at = dice.below(3)
    return TaskInstance({"text": ", ".join(told), "good": goods[at]}, str(prices[at]))


def _departing(dice: Dice) -> TaskInstance:
    cities = dice.sample(lexicon.CITIES, 3)
    times = [
        f"{6 + dice.below(16)}:{dice.pick(('05', '10', '20', '35', '40', '50'))}" for _ in cities
    ]
    told = [
        f"The train to {city} leaves at {time}." for city, time in zip(cities, times, strict=True)
    ]
    at = dice.below(3)
    return TaskInstance({"text": " ".join(told), "city": cities[at]}, times[at])


def _written_to(dice: Dice) -> TaskInstance:
    name = dice.pick(lexicon.NAMES)
    address = (
        f"{name.lower()}.{dice.pick(lexicon.JOBS)}@{dice.pick(lexicon.CITIES).lower()}.example"
    )
    day = dice.pick(lexicon.DAYS)
    text = f"Hello, this is {name}. Please send the papers to {address} before {day}. Thank you!"
    return TaskInstance({"text": text}, address)


def _ordered(dice: Dice) -> TaskInstance:
    number, name = str(10_000 + dice.below(90_000)), dice.pick(lexicon.NAMES)
    thing, day = dice.pick(lexicon.OBJECTS), dice.pick(lexicon.DAYS)
    text = (
        f"{name} ordered a new {thing} on {day}. The order number is {number}. It has not come yet."
    )
    return TaskInstance({"text": text}, number)


FAMILIES = (
    Family(
        "city",
        (
            "{text}\n\nWhich city does {name} live in?",
            "Read this: {text} Where does {name} live? Answer with the name of the city.",
            "{text} In which city is the home of {name}?",
        ),
        _about("city"),
    ),
    Family(
        "job",
        (
            "{text}\n\nWhat is {name}'s job?",
            "Read this: {text} What does {name} work as?",
            "{text} Name the profession of {name} in one word.",
        ),
        _about("job"),
    ),
    Family(
        "age",
        (
            "{text}\n\nHow old is {name}?",
            "Read this: {text} What is the age of {name}?",
            "{text} How many years old is {name}? Answer with a number.",
        ),
        _about("age"),
    ),
    Family(
        "pet",
        (
            "{text}\n\nWhat is the name of {name}'s pet?",
            "Read this: {text} What is {name}'s pet called?",
            "{text} Give the name of the animal that belongs to {name}.",
        ),
        _about("pet"),
    ),
    Family(
        "door",
        (
            "{text}\n\nWhat color is the front door of {name}?",
            "Read this: {text} Which color does the door of {name} have?",
            "{text} Name the color of {name}'s front door.",
        ),
        _about("color"),
    ),
    Family(
        "given",
        (
            "{text}\n\nWho was given the {thing}?",
            "Read this: {text} Who got the {thing}?",
            "{text} Who has the {thing} now? Answer with a name.",
        ),
        _given,
    ),
    Family(
        "placed",
        (
            "{text}\n\nWhere is the {thing}?",
            "Read this: {text} In which room is the {thing}?",
            "{text} Name the place where one finds the {thing}.",
        ),
        _placed,
    ),
    Family(
        "price",
        (
            "Price list: {text}.\n\nHow much is the {good}?",
            "A shop has these prices: {text}. What does the {good} cost?",
            "{text}. What is the price of the {good} in euros?",
        ),
        _priced,
    ),
    Family(
        "departure",
        (
            "{text}\n\nWhen does the train to {city} leave?",
            "Read this: {text} At what time does one leave for {city}?",
            "{text} Give the departure time of the train to {city}.",
        ),
        _departing,
    ),
    Family(
        "address",
        (
            "Find the e-mail address in this message: {text}",
            "{text}\n\nWhich e-mail address is in this message?",
            "Copy only the e-mail address: {text}",
        ),
        _written_to,
    ),
    Family(
        "order",
        (
            "Find the order number: {text}",
            "{text}\n\nWhat is the order number?",
            "Write down only the number of the order. {text}",
        ),
        _ordered,
    ),
)
