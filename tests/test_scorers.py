"""Every scorer against answers that were judged by hand, and against hostile ones."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judged_answers import BARE, CAPITALS, CHOICE, CONTAINS, EXACT, FORMAT, NUMBER, REGEX
from pydantic import ValidationError

from jaxorg.discovery import kind_of
from jaxorg.scorers import SCORERS, Said, Scorer
from jaxorg.scorers.choice import choices
from jaxorg.scorers.format import sentences, words
from jaxorg.scorers.number import last_number

MOST_SECONDS = 10  # of an answer of 10^5 characters, on a slow machine


def scorer(kind: str, **fields: Any) -> Scorer:
    (made,) = (made for made in SCORERS if kind_of(made) == kind)
    return made.model_validate({"kind": kind, **fields})


def judge(answer: str, reference: str, kind: str, prompt: str = "?", **fields: Any) -> bool:
    (right,) = scorer(kind, **fields).score([Said(prompt, reference, answer)])
    assert isinstance(right, bool)
    return right


@pytest.mark.parametrize(("answer", "reference", "right"), CONTAINS)
def test_contains_judges_as_by_hand(answer: str, reference: str, right: bool) -> None:
    assert judge(answer, reference, "contains") == right


@pytest.mark.parametrize(("answer", "reference", "right"), EXACT)
def test_exact_judges_as_by_hand(answer: str, reference: str, right: bool) -> None:
    assert judge(answer, reference, "exact") == right


@pytest.mark.parametrize(("answer", "reference", "right"), NUMBER)
def test_number_judges_as_by_hand(answer: str, reference: str, right: bool) -> None:
    assert judge(answer, reference, "number") == right


@pytest.mark.parametrize(("prompt", "answer", "reference", "right"), CHOICE)
def test_choice_judges_as_by_hand(prompt: str, answer: str, reference: str, right: bool) -> None:
    assert judge(answer, reference, "choice", prompt) == right


@pytest.mark.parametrize(("answer", "pattern", "right"), REGEX)
def test_regex_judges_as_by_hand(answer: str, pattern: str, right: bool) -> None:
    assert judge(answer, "", "regex", pattern=pattern) == right


@pytest.mark.parametrize(("answer", "fields", "right"), FORMAT)
def test_format_judges_as_by_hand(answer: str, fields: dict[str, Any], right: bool) -> None:
    assert judge(answer, "", "format", **fields) == right


def test_every_table_has_forty_answers_of_either_sort() -> None:
    for table in (CONTAINS, EXACT, NUMBER, CHOICE, REGEX, FORMAT):
        assert len(table) >= 40
        assert {row[-1] for row in table} == {True, False}


def test_each_scorer_is_found_by_its_file() -> None:
    kinds = [kind_of(made) for made in SCORERS]
    assert kinds == ["choice", "contains", "exact", "format", "judge", "number", "regex"]


def test_contains_takes_texts_in_place_of_the_reference() -> None:
    assert judge("I refuse.", "Paris", "contains", texts=["cannot", "refuse"])
    assert not judge("Paris", "Paris", "contains", texts=["cannot", "refuse"])


@pytest.mark.parametrize(
    ("answer", "fields", "right"),
    [
        ("1.3", {"absolute": 0.3}, True),
        ("1.31", {"absolute": 0.3}, False),
        ("110", {"relative": 0.1}, False),
        ("1.1", {"relative": 0.1}, True),
        ("0.9", {"relative": 0.1}, True),
        ("1.000", {"decimal": ","}, False),
        ("1,000", {"decimal": ","}, True),
    ],
)
def test_a_number_may_be_near_and_its_decimal_mark_said(
    answer: str, fields: dict[str, Any], right: bool
) -> None:
    assert judge(answer, "1", "number", **fields) == right


def test_the_last_list_of_choices_is_read() -> None:
    shots = "A) x\nB) y\nAnswer: A\n\n(A) red\n(B) blue, deep\n(C) green."
    assert choices(shots) == {"A": "red", "B": "blue, deep", "C": "green"}
    assert choices("Ask A. Smith or C. Jones") == {}


def test_counts_of_words_and_sentences() -> None:
    assert words("Mother-in-law’s 2 cats") == 3
    assert sentences("I met J. Doe, e.g. at noon. Fine...") == 2


@pytest.mark.parametrize(
    ("kind", "prompt", "reference", "why"),
    [
        ("contains", "?", " ", "the reference is blank"),
        ("exact", "?", "", "the reference is blank"),
        ("number", "?", "many", "the reference 'many' has no number"),
        ("choice", BARE, "Paris", "the reference 'Paris' picks no choice"),
    ],
)
def test_a_reference_that_nothing_can_be_compared_with_is_told(
    kind: str, prompt: str, reference: str, why: str
) -> None:
    assert scorer(kind).unsuited(prompt, reference).startswith(why)
    assert not scorer(kind).unsuited(CAPITALS, "Paris" if kind != "number" else "72")


@pytest.mark.parametrize(
    ("kind", "fields", "why"),
    [
        ("regex", {"pattern": "("}, "missing )"),
        ("regex", {"pattern": r"(a)\1"}, "invalid escape sequence"),
        ("regex", {"pattern": "(?=a)"}, "write it as RE2 reads it"),
        ("regex", {"pattern": "(?:" + "a?" * 50 + "){1000}b"}, "states"),
        ("regex", {"pattern": "((a{9}){9}){99}"}, "states"),
        ("regex", {"pattern": "a{" + "9" * 900 + "}"}, "states"),
        ("contains", {"texts": ["a", "\u200b"]}, "blank"),
        ("number", {"absolute": -1}, "greater than or equal to 0"),
        ("format", {}, "give an instruction"),
        ("format", {"words": {"at_least": 3, "at_most": 2}}, "must not be below at_least"),
        ("format", {"starts_with": "  "}, "blank"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    kind: str, fields: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        scorer(kind, **fields)
    (mistake,) = refused.value.errors()
    assert why in mistake["msg"]


TEXT_SCORERS = [
    scorer("contains"),
    scorer("exact"),
    scorer("number"),
    scorer("choice"),
    scorer("regex", pattern=r"(a+)+$"),
    scorer(
        "format", words={"at_most": 5}, sentences={"at_most": 5}, bullets={"at_least": 1},
        starts_with="a", ends_with="a", forbidden=["aa"], script="latin",
    ),
]  # fmt: skip
ANYTHING = st.text(st.characters(codec=None, exclude_categories=()))  # halves of characters, too
TELLING = st.text(st.sampled_from("ABCab 0123.,'/^{}-−½⁵×e$\\()answeris:\n"))


@settings(deadline=None, max_examples=200)
@given(ANYTHING | TELLING, ANYTHING | TELLING, ANYTHING | TELLING)
def test_any_text_is_judged(prompt: str, reference: str, answer: str) -> None:
    for each in TEXT_SCORERS:
        assert all(type(right) is bool for right in each.score([Said(prompt, reference, answer)]))
        each.unsuited(prompt, reference)


@given(st.integers(-(10**15), 10**15), st.integers(0, 99))
def test_a_number_is_the_same_however_it_is_written(whole: int, cents: int) -> None:
    english = f"{whole:,}.{cents:02}"
    swapped = english.translate(str.maketrans(",.", ".,"))
    if abs(whole) >= 1000:
        assert last_number(swapped) == last_number(english)
    spaced = english.replace(",", "\u202f").replace("-", "−")
    assert last_number(f"it is {spaced} kg") == last_number(english)
    assert last_number(english) == last_number(f"{whole}.{cents:02}")


@settings(deadline=None)
@given(ANYTHING.filter(lambda text: not scorer("exact").unsuited("?", text)))
def test_the_reference_itself_is_right(reference: str) -> None:
    assert judge(reference, reference, "exact")
    assert judge(f" {reference.upper()} ", reference.upper(), "exact")


HOSTILE = [
    "a", "1", "1,", "1 111 ", "1/", "^", "-", "(", "\\frac{", "1.1", "10^", "1 ", "½", "⁵", "1e",
    " \n", "- ", ". ", "answer is ", "answer is answer", "B ", "(B", "A) x ", "e.g. ", "a'", "好",
    "\ud800", "\u0301", "option ", "**", "A. ", "is ", "is is",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_takes_bounded_time(piece: str) -> None:
    text = (piece * 100_000)[:100_000]
    for each in TEXT_SCORERS:
        begin = time.process_time()
        each.score([Said(text, "A) aa 1", text)])
        each.score([Said(CAPITALS, "aa", text + "!")])
        assert time.process_time() - begin < MOST_SECONDS, each.kind


def test_the_dearest_pattern_takes_bounded_time() -> None:
    begin = time.process_time()
    assert not judge("a" * 100_000, "", "regex", pattern="(?:a?a?){99}b")
    assert not judge("a" * 100_000, "", "regex", pattern="[ab]{900}a{900}b")
    assert time.process_time() - begin < 3 * MOST_SECONDS
