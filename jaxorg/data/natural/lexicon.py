"""What instructions in natural language are about: people, places, things and their words."""

from __future__ import annotations

from collections.abc import Mapping


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


NAMES = _split(
    "Anna, Ben, Clara, David, Emma, Felix, Grace, Henry, Ivan, Julia, Karim, Laura, Maria, "
    "Nadia, Oscar, Paula, Quentin, Rosa, Samuel, Tara, Victor, Wendy, Yusuf, Zoe, Amir, Bella, "
    "Carlos, Daniel, Elena, Farid, George, Hanna, Isabel, Jonas, Kate, Leo, Mona, Nina, Omar, "
    "Peter"
)
CITIES = _split(
    "Lisbon, Oslo, Cairo, Madrid, Vienna, Dublin, Tokyo, Boston, Chicago, Delhi, Athens, "
    "Prague, Warsaw, Lima, Nairobi, Seoul, Toronto, Berlin, Paris, Rome, Helsinki, Geneva, "
    "Sydney, Havana, Istanbul, Munich, Bergen, Porto, Seville, Denver"
)
JOBS = _split(
    "baker, nurse, teacher, pilot, farmer, painter, lawyer, doctor, driver, waiter, plumber, "
    "tailor, dentist, gardener, carpenter, librarian, musician, engineer, journalist, butcher"
)
PETS = _split("cat, dog, parrot, rabbit, horse, goat, turtle, hamster")
PET_NAMES = _split(
    "Biscuit, Pepper, Shadow, Coco, Lucky, Daisy, Ginger, Misty, Rocky, Sunny, Toffee, Max"
)
HOBBIES = _split(
    "chess, tennis, painting, swimming, cooking, reading, dancing, fishing, cycling, singing, "
    "hiking, sewing, skiing, pottery, photography"
)
COLORS = _split("red, blue, green, yellow, black, white, brown, purple, orange, pink, gray")
GOODS = _split(
    "bread, milk, cheese, butter, rice, honey, coffee, tea, sugar, flour, salt, jam, soap, "
    "paper, oil, juice"
)
THINGS = _split(
    "apples, books, pencils, coins, stamps, marbles, eggs, flowers, cards, cups, shells, "
    "buttons, oranges, tickets, candles, keys, plates, balloons"
)
OBJECTS = _split(
    "key, phone, wallet, umbrella, lamp, camera, letter, map, ticket, notebook, basket, hammer"
)
ROOMS = _split(
    "kitchen, garage, bedroom, office, garden, cellar, hallway, bathroom, attic, balcony"
)
DAYS = _split("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
MONTHS = _split(
    "January, February, March, April, May, June, July, August, September, October, November, "
    "December"
)
KINDS: Mapping[str, tuple[str, ...]] = {
    "fruit": _split("apple, banana, cherry, grape, lemon, mango, peach, pear, plum, melon"),
    "animal": _split("lion, tiger, zebra, camel, monkey, wolf, bear, fox, deer, rabbit"),
    "color": _split("red, blue, green, yellow, purple, orange, pink, brown, black, white"),
    "vehicle": _split("car, bus, train, truck, bicycle, tram, boat, plane, motorcycle, van"),
    "tool": _split("hammer, saw, drill, wrench, screwdriver, shovel, rake, axe, pliers, chisel"),
    "vegetable": _split(
        "carrot, potato, onion, cabbage, spinach, celery, leek, radish, turnip, pea"
    ),
    "instrument": _split(
        "piano, violin, guitar, trumpet, flute, drum, cello, harp, oboe, clarinet"
    ),
    "country": _split("Spain, France, Brazil, Egypt, Japan, India, Canada, Kenya, Chile, Norway"),
}
OPPOSITES = tuple(
    tuple(pair.split())
    for pair in _split(
        "hot cold, big small, fast slow, old young, wet dry, day night, left right, soft hard, "
        "high low, open closed, thin thick, rich poor, happy sad, light dark, early late, full "
        "empty, strong weak, clean dirty, long short, up down, inside outside, first last, love "
        "hate, win lose, buy sell, push pull, noisy quiet, sweet sour, cheap expensive, safe "
        "dangerous"
    )
)
PAST = tuple(
    tuple(pair.split())
    for pair in _split(
        "go went, eat ate, see saw, take took, give gave, write wrote, run ran, drink drank, "
        "buy bought, bring brought, think thought, sing sang, swim swam, fly flew, come came, "
        "find found, know knew, make made, speak spoke, sleep slept, drive drove, break broke, "
        "begin began, choose chose, fall fell, forget forgot, teach taught, sell sold, win won, "
        "wear wore"
    )
)
PLURALS = tuple(
    tuple(pair.split())
    for pair in _split(
        "child children, mouse mice, foot feet, tooth teeth, man men, woman women, goose geese, "
        "city cities, baby babies, leaf leaves, knife knives, box boxes, bus buses, story "
        "stories, wolf wolves, potato potatoes, country countries, watch watches, life lives, "
        "person people"
    )
)
CAPITALS = tuple(
    tuple(pair.split(":"))
    for pair in _split(
        "France:Paris, Italy:Rome, Spain:Madrid, Germany:Berlin, Japan:Tokyo, Egypt:Cairo, "
        "Portugal:Lisbon, Greece:Athens, Austria:Vienna, Norway:Oslo, Ireland:Dublin, "
        "Poland:Warsaw, Russia:Moscow, China:Beijing, Cuba:Havana, Peru:Lima, Kenya:Nairobi, "
        "Canada:Ottawa, Sweden:Stockholm, Finland:Helsinki, Denmark:Copenhagen, "
        "Hungary:Budapest, Belgium:Brussels, Thailand:Bangkok, Vietnam:Hanoi, Chile:Santiago, "
        "Iran:Tehran, Iraq:Baghdad, Lebanon:Beirut, Nepal:Kathmandu"
    )
)
TRANSLATED: Mapping[str, Mapping[str, str]] = {
    english: dict(zip(("Spanish", "French", "German", "Italian"), words, strict=True))
    for english, *words in (
        entry.split()
        for entry in _split(
            "dog perro chien Hund cane, cat gato chat Katze gatto, house casa maison Haus casa, "
            "water agua eau Wasser acqua, bread pan pain Brot pane, book libro livre Buch "
            "libro, sun sol soleil Sonne sole, moon luna lune Mond luna, milk leche lait Milch "
            "latte, red rojo rouge rot rosso, green verde vert grün verde, night noche nuit "
            "Nacht notte, day día jour Tag giorno, friend amigo ami Freund amico, mother madre "
            "mère Mutter madre, father padre père Vater padre, city ciudad ville Stadt città, "
            "tree árbol arbre Baum albero, fish pez poisson Fisch pesce, school escuela école "
            "Schule scuola, hand mano main Hand mano, car coche voiture Auto macchina, heart "
            "corazón cœur Herz cuore, time tiempo temps Zeit tempo"
        )
    )
}
