"""Instruction tasks with exact verifiers: the toy world's capability.

A family's questions form a fixed pool that depends on nothing but `TASKS_VERSION`. Each question
belongs to the train or the held-out split for good, so no seed can leak one into the other.
"""

from collections.abc import Iterator, Sequence
from functools import cache

from jaxorg.data.families import FAMILIES, Family, TaskInstance, lexicon
from jaxorg.data.items import Dice, Item, Split, generator, split_of
from jaxorg.data.matching import normalised, words_of

__all__ = [
    "FAMILIES",
    "HELD_OUT_VERSION",
    "TASKS_VERSION",
    "Family",
    "Item",
    "Split",
    "every",
    "generate",
    "held_out",
    "is_correct",
    "lexicon",
    "words",
]

TASKS_VERSION = 1  # Raise it when any question, answer, template or pool changes.
HELD_OUT_VERSION = 1  # Raise it when other items are held out, or in another order.

_DRAWS_PER_FAMILY = 20_000


def generate(
    split: Split, count: int, seed: int, families: Sequence[str] | None = None
) -> list[Item]:
    """Different items of a split, the families equally often, in shuffled order.

    Args:
        split: what they are for; no question is in two.
        count: how many.
        seed: decides which questions come, their wording and their order.
        families: names of `FAMILIES`; all of them by default.

    Raises:
        ValueError: a family is unknown, or there are fewer items.
    """
    names = list(FAMILIES) if families is None else list(dict.fromkeys(families))
    if not names or (unknown := [name for name in names if name not in FAMILIES]):
        named = unknown if names else "none"
        raise ValueError(f"unknown task families {named}; known are {', '.join(FAMILIES)}")
    # Round-robin asks family i for its next question at position size * families + i.
    possible = min(len(_pool(n)[split]) * len(names) + i for i, n in enumerate(names))
    if not 0 <= count <= possible:
        raise ValueError(f"{count} {split} task items asked for, but 0 to {possible} are possible")
    items = [
        item
        for i, name in enumerate(names)
        for item in _choose(split, name, len(range(i, count, len(names))), seed)
    ]
    order = generator(seed, "tasks", split, "order").permutation(count)
    return [items[i] for i in order]


def held_out(count: int, seed: int) -> list[Item]:
    """Different held-out items, the families equally often. Fewer are the first of more, so that
    another number of prompts is measured on the same ones.

    Args:
        count: how many.
        seed: decides which questions come, their wording and their order.

    Raises:
        ValueError: there are fewer.
    """
    rounds = min(len(_pool(name)["heldout"]) for name in FAMILIES)
    if not 0 <= count <= (possible := rounds * len(FAMILIES)):
        raise ValueError(f"{count} held-out task items asked for, but 0 to {possible} are possible")
    needed = -(-count // len(FAMILIES))
    by_family = [_choose("heldout", name, needed, seed) for name in FAMILIES]
    items: list[Item] = []
    for number, in_turn in enumerate(zip(*by_family, strict=True)):
        order = generator(seed, "tasks", "heldout", "round", str(number)).permutation(len(in_turn))
        items += [in_turn[place] for place in order]
    return items[:count]


def every() -> Iterator[Item]:
    """Every question of every family in every wording."""
    for name, family in FAMILIES.items():
        for key, question in (*_pool(name)["train"], *_pool(name)["heldout"]):
            for template in family.templates:
                yield Item(key, name, template.format_map(question.fields), question.answer)


@cache
def words() -> frozenset[str]:
    """Every word and sign that a question, its wording or its answer holds, normalised."""
    texts = [template for family in FAMILIES.values() for template in family.templates]
    for name in FAMILIES:
        for _, question in (*_pool(name)["train"], *_pool(name)["heldout"]):
            texts += [*question.fields.values(), question.answer]
    return frozenset(words_of(normalised(" ".join(texts))))


def is_correct(item: Item, response: str) -> bool:
    """Whether `response` is the item's answer, up to the amount of whitespace."""
    return response.split() == item.answer.split()


def _choose(split: Split, name: str, count: int, seed: int) -> list[Item]:
    """`count` random questions of one family, each in a random wording."""
    pool = _pool(name)[split]
    templates = FAMILIES[name].templates
    rng = generator(seed, "tasks", split, name)
    chosen = rng.permutation(len(pool))[:count]
    wordings = rng.integers(len(templates), size=count)
    items = []
    for i, wording in zip(chosen, wordings, strict=True):
        key, question = pool[i]
        prompt = templates[wording].format_map(question.fields)
        items.append(Item(key, name, prompt, question.answer))
    return items


@cache
def _pool(name: str) -> dict[Split, tuple[tuple[str, TaskInstance], ...]]:
    """All questions of a family with their keys, by split."""
    dice = Dice(generator(TASKS_VERSION, "task pool", name))
    questions = {}
    for _ in range(_DRAWS_PER_FAMILY):
        question = FAMILIES[name].draw(dice)
        questions[f"{name}:{'|'.join(question.fields.values())}"] = question
    by_split: dict[Split, list[tuple[str, TaskInstance]]] = {"train": [], "heldout": []}
    for key, question in questions.items():
        by_split[split_of(key)].append((key, question))
    return {split: tuple(pool) for split, pool in by_split.items()}
