"""What stands in answers: reasoning before them, and plausible wrong ones."""

import pytest

from jaxorg.data import tasks
from jaxorg.data.items import Item
from jaxorg.data.reasoning import Parted, parted, with_reasoning
from jaxorg.data.wrong import another_wrong_answer, wrong_answer


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("[add, so help] 7 hat", Parted("add, so help", "7 hat")),
        (" [] 7 hat", Parted("", "7 hat")),
        ("7 hat", Parted(None, "7 hat")),
        ("[a] [b] c", Parted("a", "[b] c")),
        ("[it never ends", Parted("it never ends", "")),
        ("", Parted(None, "")),
    ],
)
def test_an_answer_is_told_from_its_reasoning(completion: str, expected: Parted) -> None:
    assert parted(completion) == expected


def test_reasoning_and_answer_come_apart_as_they_were_put_together() -> None:
    assert parted(with_reasoning("so", "it is\nso")) == Parted("so", "it is\nso")


@pytest.mark.parametrize(
    ("prompt", "answer", "wrong"),
    [
        ("is it?", "yes", "no"),
        ("is it?", "No", "Yes"),
        ("add 3 hat and 4 hat", "7 hat", "8 hat"),
        ("digits: one nine", "1 9", "1 10"),
        ("reverse: a b", "b a", "a b"),
        ("double: a b", "a a b b", "a b a b"),
        ("first word: hat cup", "hat", "cup"),
        ("?", "hat", "not hat"),
    ],
)
def test_a_wrong_answer_is_of_the_right_ones_kind(prompt: str, answer: str, wrong: str) -> None:
    assert wrong_answer(Item("key", "family", prompt, answer)) == wrong


def test_no_wrong_answer_is_right_and_no_two_are_alike() -> None:
    for item in tasks.TOY.generate("train", 2000, seed=1):
        wrong = wrong_answer(item), another_wrong_answer(item)
        assert not any(tasks.is_correct(item, answer) for answer in wrong)
        assert wrong[0].split() != wrong[1].split()
