"""Instruction tasks with exact verifiers: what models are able to do.

A world's families draw their questions from fixed pools that depend on nothing but its version.
Each question belongs to the train or the held-out split for good, so no seed can leak one into the
other.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from jaxorg.data import families, natural
from jaxorg.data.families import Family, TaskInstance
from jaxorg.data.items import Dice, Item, Split, generator, split_of
from jaxorg.data.matching import normalised, words_of

HELD_OUT_VERSION = 1  # Raise it when other items are held out, or in another order.


class World:
    """Families of tasks, each with a pool of questions."""

    def __init__(self, label: str, version: int, families: Mapping[str, Family], draws: int):
        """
        Args:
            label: names its random numbers.
            version: to be raised when any question, answer, template or pool changes.
            families: by name.
            draws: how often each draws for its pool.
        """
        self._label, self.version, self.families, self._draws = label, version, families, draws
        self._pool = cache(self._drawn)
        self.words = cache(self._words)

    def generate(
        self, split: Split, count: int, seed: int, families: Sequence[str] | None = None
    ) -> list[Item]:
        """Different items of a split, the families equally often, in shuffled order.

        Args:
            split: what they are for; no question is in two.
            count: how many.
            seed: decides which questions come, their wording and their order.
            families: names of families; all of them by default.

        Raises:
            ValueError: a family is unknown, or there are fewer items.
        """
        names = list(self.families) if families is None else list(dict.fromkeys(families))
        if not names or (unknown := [name for name in names if name not in self.families]):
            named = unknown if names else "none"
            raise ValueError(f"unknown task families {named}; known are {', '.join(self.families)}")
        # Round-robin asks family i for its next question at position size * families + i.
        possible = min(len(self._pool(n)[split]) * len(names) + i for i, n in enumerate(names))
        if not 0 <= count <= possible:
            raise ValueError(
                f"{count} {split} task items asked for, but 0 to {possible} are possible"
            )
        items = [
            item
            for i, name in enumerate(names)
            for item in self._choose(split, name, len(range(i, count, len(names))), seed)
        ]
        order = generator(seed, f"{self._label}s", split, "order").permutation(count)
        return [items[i] for i in order]

    def held_out(self, count: int, seed: int) -> list[Item]:
        """Different held-out items, the families equally often. Fewer are the first of more, so
        that another number of prompts is measured on the same ones.

        Args:
            count: how many.
            seed: decides which questions come, their wording and their order.

        Raises:
            ValueError: there are fewer.
        """
        rounds = min(len(self._pool(name)["heldout"]) for name in self.families)
        if not 0 <= count <= (possible := rounds * len(self.families)):
            raise ValueError(
                f"{count} held-out task items asked for, but 0 to {possible} are possible"
            )
        needed = -(-count // len(self.families))
        by_family = [self._choose("heldout", name, needed, seed) for name in self.families]
        items: list[Item] = []
        for number, in_turn in enumerate(zip(*by_family, strict=True)):
            rng = generator(seed, f"{self._label}s", "heldout", "round", str(number))
            items += [in_turn[place] for place in rng.permutation(len(in_turn))]
        return items[:count]

    def every(self) -> Iterator[Item]:
        """Every question of every family in every wording."""
        for name, family in self.families.items():
            for key, question in (*self._pool(name)["train"], *self._pool(name)["heldout"]):
                for template in family.templates:
                    yield Item(key, name, template.format_map(question.fields), question.answer)

    def _words(self) -> frozenset[str]:
        """Every word and sign that a question, its wording or its answer holds, normalised."""
        texts = [template for family in self.families.values() for template in family.templates]
        for name in self.families:
            for _, question in (*self._pool(name)["train"], *self._pool(name)["heldout"]):
                texts += [*question.fields.values(), question.answer]
        return frozenset(words_of(normalised(" ".join(texts))))

    def _choose(self, split: Split, name: str, count: int, seed: int) -> list[Item]:
        """`count` random questions of one family, each in a random wording."""
        pool = self._pool(name)[split]
        templates = self.families[name].templates
        rng = generator(seed, f"{self._label}s", split, name)
        chosen = rng.permutation(len(pool))[:count]
        wordings = rng.integers(len(templates), size=count)
        items = []
        for i, wording in zip(chosen, wordings, strict=True):
            key, question = pool[i]
            prompt = templates[wording].format_map(question.fields)
            items.append(Item(key, name, prompt, question.answer))
        return items

    def _drawn(self, name: str) -> dict[Split, tuple[tuple[str, TaskInstance], ...]]:
        """All questions of a family with their keys, by split."""
        dice = Dice(generator(self.version, f"{self._label} pool", name))
        questions = {}
        for _ in range(self._draws):
            question = self.families[name].draw(dice)
            questions[f"{name}:{'|'.join(question.fields.values())}"] = question
        by_split: dict[Split, list[tuple[str, TaskInstance]]] = {"train": [], "heldout": []}
        for key, question in questions.items():
            by_split[split_of(key)].append((key, question))
        return {split: tuple(pool) for split, pool in by_split.items()}


TOY = World("task", 1, families.FAMILIES, 20_000)
NATURAL = World("instruction", 1, natural.FAMILIES, 2_000)


def is_correct(item: Item, response: str) -> bool:
    """Whether `response` is the item's answer, up to the amount of whitespace."""
    return response.split() == item.answer.split()
