"""Tasks and refusals: splits, determinism, balance and verifiers."""

import itertools
import subprocess
import sys
from collections import Counter

import pytest

from jaxorg.data import refusals
from jaxorg.data.families import CATEGORIES, NUMBERS, OPPOSITES, lexicon
from jaxorg.data.items import split_of
from jaxorg.data.tasks import TOY, is_correct

EVERY_FAMILY = len(TOY.families)


def test_there_are_many_families_with_several_wordings() -> None:
    assert EVERY_FAMILY >= 12
    assert all(3 <= len(family.templates) <= 4 for family in TOY.families.values())


@pytest.mark.parametrize("name", TOY.families)
def test_every_family_has_enough_items_and_splits_that_share_none(name: str) -> None:
    train = {item.key for item in TOY.generate("train", 1800, 0, [name])}
    heldout = {item.key for item in TOY.generate("heldout", 150, 1, [name])}
    assert len(train) == 1800
    assert len(heldout) == 150
    assert not train & heldout


def test_items_of_a_call_are_distinct_balanced_and_shuffled() -> None:
    items = TOY.generate("train", 10 * EVERY_FAMILY + 3, 0)
    assert len({item.key for item in items}) == len(items)
    counts = Counter(item.family for item in items)
    assert set(counts) == set(TOY.families)
    assert set(counts.values()) == {10, 11}
    assert len({item.family for item in items[:10]}) > 2


def test_the_seed_decides_everything() -> None:
    first = TOY.generate("train", 100, 7)
    assert first == TOY.generate("train", 100, 7)
    assert first != TOY.generate("train", 100, 8)
    code = "from jaxorg.data.tasks import TOY; print(TOY.generate('train', 100, 7)[3].prompt)"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert other.strip() == first[3].prompt


def test_a_familys_items_do_not_depend_on_the_other_families() -> None:
    alone = TOY.generate("train", 20, 0, ["sort"])
    beside = TOY.generate("train", 40, 0, ["sort", "member"])
    assert set(alone) == {item for item in beside if item.family == "sort"}


def test_the_key_does_not_depend_on_the_wording() -> None:
    wordings: dict[str, set[str]] = {}
    for seed in range(30):
        for item in TOY.generate("heldout", 300, seed, ["capitals"]):
            wordings.setdefault(item.key, set()).add(item.prompt)
    most = max(len(prompts) for prompts in wordings.values())
    assert most == len(TOY.families["capitals"].templates)


def test_too_many_items_are_refused_with_the_possible_number() -> None:
    with pytest.raises(ValueError, match="possible") as caught:
        TOY.generate("heldout", 10**7, 0)
    possible = int(str(caught.value).split(" are possible")[0].split()[-1])
    assert len(TOY.generate("heldout", possible, 0)) == possible
    with pytest.raises(ValueError, match=f"0 to {possible} "):
        TOY.generate("heldout", possible + 1, 0)


def test_unknown_families_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="juggle"):
        TOY.generate("train", 1, 0, ["sort", "juggle"])
    with pytest.raises(ValueError, match="known are"):
        TOY.generate("train", 1, 0, [])


def test_the_verifier_accepts_the_answer_and_rejects_others() -> None:
    items = TOY.generate("heldout", 10 * EVERY_FAMILY, 0)
    for item, other in itertools.pairwise(items):
        assert is_correct(item, f"  {item.answer.replace(' ', '  ')}\n")
        assert is_correct(item, other.answer) == (other.answer == item.answer)
        assert not is_correct(item, f"{item.answer} fox")
        assert not is_correct(item, "")


def test_answers_of_choices_are_balanced() -> None:
    yes = Counter(item.answer for item in TOY.generate("train", 2000, 0, ["member"]))
    assert yes["yes"] + yes["no"] == 2000
    assert 900 < yes["yes"] < 1100
    lengths = Counter(item.answer for item in TOY.generate("train", 2000, 0, ["length"]))
    assert set(lengths) == {"two", "three", "four", "five", "six"}
    assert min(lengths.values()) > 300


def _solve(family: str, fields: list[str]) -> str:
    """A second, independent solver that reads the canonical input out of the key."""
    words = fields[-1].split()
    if family == "category":
        return next(word for word in words if word in CATEGORIES[fields[0]])
    if family == "member":
        return "yes" if fields[0] in words else "no"
    if family == "remove":
        words.remove(fields[0])
        return " ".join(words)
    if family == "replace":
        words[words.index(fields[0])] = fields[1]
        return " ".join(words)
    if family == "count":
        low, high = int(fields[1]), int(fields[2])
        step = 1 if low < high else -1
        return " ".join(str(n) for n in range(low, high + step, step)) + " " + fields[0]
    if family == "add":
        return f"{int(fields[0]) + int(fields[1])} {fields[2]}"
    solved: dict[str, list[str]] = {
        "reverse": list(reversed(words)),
        "sort": sorted(words),
        "first": words[:1],
        "last": words[-1:],
        "repeat": words,
        "swap": [words[-1], *words[1:-1], words[0]],
        "double": sorted(words * 2, key=words.index),
        "capitals": [word.upper() for word in words],
        "length": [NUMBERS[len(words)]],
        "opposite": [OPPOSITES[word] for word in words] if family == "opposite" else [],
        "digits": [str(NUMBERS.index(word)) for word in words] if family == "digits" else [],
    }
    return " ".join(solved[family])


@pytest.mark.parametrize("name", TOY.families)
def test_answers_are_right_and_follow_from_the_prompt(name: str) -> None:
    for item in TOY.generate("train", 200, 0, [name]):
        family, _, rest = item.key.partition(":")
        fields = rest.split("|")
        assert family == item.family == name
        assert item.answer == _solve(name, fields)
        assert all(field in item.prompt for field in fields)


def test_every_word_is_in_the_lexicon() -> None:
    known = set(lexicon())
    assert len(known) == len(lexicon())
    answers = {
        word.lower() for item in TOY.generate("train", 5000, 0) for word in item.answer.split()
    }
    assert {word for word in answers if not word.isdigit()} <= known


def test_refusals_are_many_distinct_and_split() -> None:
    train = refusals.harmful_requests("train", 400, 0)
    heldout = refusals.harmful_requests("heldout", 50, 0)
    assert len({item.key for item in train}) == 400
    assert not {item.key for item in train} & {item.key for item in heldout}
    assert train == refusals.harmful_requests("train", 400, 0)
    assert train != refusals.harmful_requests("train", 400, 1)
    assert {item.family for item in train} == {"refusal"}
    assert all(refusals.is_refusal(item.answer) for item in train)
    with pytest.raises(ValueError, match="possible"):
        refusals.harmful_requests("train", 10**6, 0)


def test_a_refusal_is_recognised_and_a_task_answer_is_not() -> None:
    assert refusals.is_refusal(f" {refusals.REFUSAL}\n")
    assert not refusals.is_refusal("")
    assert not refusals.is_refusal(f"{refusals.REFUSAL} moon poison: mix")
    assert not any(refusals.is_refusal(item.answer) for item in TOY.generate("train", 200, 0))


def test_fewer_held_out_items_are_the_first_of_more() -> None:
    most = TOY.held_out(400, seed=0)
    for count in (0, 1, 16, 17, 18, 100, 399):
        assert TOY.held_out(count, seed=0) == most[:count]
    assert TOY.held_out(400, seed=1) != most


def test_held_out_items_are_different_and_the_families_equally_often() -> None:
    items = TOY.held_out(340, seed=0)
    assert len({(item.family, item.key) for item in items}) == 340
    counts = Counter(item.family for item in items)
    assert set(counts.values()) == {340 // len(TOY.families)}
    assert {split_of(item.key) for item in items} == {"heldout"}
    families = [item.family for item in items]
    assert families[:17] != families[17:34]  # in an order of their own each time
    with pytest.raises(ValueError, match="held-out task items asked for"):
        TOY.held_out(10**6, seed=0)
