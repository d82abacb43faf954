"""Prompts of the user's own: the same items in every format, split for good, drawn by seed."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from jaxorg.data.items import HELDOUT_ONE_IN, Item
from jaxorg.data.prompts import Prompts
from jaxorg.errors import Refusal

DATA = Path(__file__).parents[2] / "shared" / "data"
COUNT = 1000
QUESTIONS = [{"prompt": f"say {i}", "answer": f"it is {i}"} for i in range(COUNT)]
NESTED = [
    {"question": {"text": row["prompt"]}, "replies": [{"n": 1}, {"text": row["answer"]}]}
    for row in QUESTIONS
]
PATHS = {"prompt": "question.text", "answer": "replies.1.text"}

Records = Sequence[Mapping[str, Any]]


def write(path: Path, records: Records) -> Path:
    match path.suffix:
        case ".jsonl":
            path.write_text("\n\n".join(json.dumps(row) for row in records), encoding="utf-8")
        case ".json":
            path.write_text(json.dumps(list(records)), encoding="utf-8")
        case _:
            pq.write_table(pa.Table.from_pylist(list(records)), path)
    return path


def everything(prompts: Prompts) -> list[Item]:
    """All items of both splits."""
    items: list[Item] = []
    for split in ("train", "heldout"):
        items += prompts.items(split, size(prompts, split), 0, "test")
    return items


def size(prompts: Prompts, split: Any) -> int:
    """How many items a split has, by the refusal of more."""
    with pytest.raises(Refusal) as caught:
        prompts.items(split, 10**9, 0, "test")
    return int(str(caught.value).rpartition(" ")[2])


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize(
    ("records", "fields"), [(QUESTIONS, {}), (NESTED, PATHS)], ids=["flat", "nested"]
)
def test_every_format_gives_every_item(
    tmp_path: Path, suffix: str, records: Records, fields: dict[str, Any]
) -> None:
    path = write(tmp_path / f"mine{suffix}", records)
    found = everything(Prompts(source=str(path), **fields))
    assert {(item.prompt, item.answer) for item in found} == {
        (row["prompt"], row["answer"]) for row in QUESTIONS
    }
    assert {item.family for item in found} == {"mine"}


def test_the_format_does_not_matter(tmp_path: Path) -> None:
    drawn = [
        Prompts(source=str(write(tmp_path / f"mine{suffix}", QUESTIONS))).items("train", 50, 3, "")
        for suffix in (".jsonl", ".json", ".parquet")
    ]
    assert drawn[0] == drawn[1] == drawn[2]


@pytest.fixture
def prompts(tmp_path: Path) -> Prompts:
    return Prompts(source=str(write(tmp_path / "mine.jsonl", QUESTIONS)))


def test_train_and_held_out_share_no_prompt(prompts: Prompts) -> None:
    train, heldout = (size(prompts, split) for split in ("train", "heldout"))
    assert train + heldout == COUNT == len({item.prompt for item in everything(prompts)})
    assert heldout == pytest.approx(COUNT / HELDOUT_ONE_IN, rel=0.3)


def test_a_prompt_stays_in_its_split_when_others_come_and_go(tmp_path: Path) -> None:
    def heldout(folder: str, records: Records) -> set[str]:
        (tmp_path / folder).mkdir()
        mine = Prompts(source=str(write(tmp_path / folder / "mine.jsonl", records)))
        return {item.prompt for item in mine.items("heldout", size(mine, "heldout"), 0, "")}

    half = {row["prompt"] for row in QUESTIONS[::2]}
    assert heldout("half", QUESTIONS[::2]) == heldout("all", QUESTIONS) & half


def test_a_draw_is_decided_by_its_seed(prompts: Prompts) -> None:
    first = prompts.items("train", 20, 0, "test")
    assert prompts.items("train", 20, 0, "test") == first
    other = prompts.items("train", 20, 1, "test")
    assert {item.key for item in other} != {item.key for item in first}
    assert len({item.key for item in first}) == 20


def test_the_folder_does_not_matter(prompts: Prompts, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    moved = Prompts(source=str(write(tmp_path / "elsewhere" / "mine.jsonl", QUESTIONS)))
    assert moved.items("train", 20, 0, "test") == prompts.items("train", 20, 0, "test")


def test_a_repeated_prompt_counts_once_with_its_first_answer(tmp_path: Path) -> None:
    again = [{"prompt": row["prompt"], "answer": "another"} for row in QUESTIONS]
    path = write(tmp_path / "mine.jsonl", [*QUESTIONS, *again])
    found = everything(Prompts(source=str(path)))
    assert len(found) == COUNT
    assert all(item.answer.startswith("it is") for item in found)


def test_long_items_are_left_out(tmp_path: Path) -> None:
    long = {"prompt": "tell me", "answer": "more " * 100}
    path = write(tmp_path / "mine.jsonl", [long, *QUESTIONS])
    found = everything(Prompts(source=str(path), max_characters=200))
    assert len(found) == COUNT
    assert max(len(item.answer) for item in found) < 200


ALPACA = [
    {"instruction": row["prompt"], "input": ("", " ", f"{i}")[i % 3], "output": row["answer"]}
    for i, row in enumerate(QUESTIONS)
]
TURNS = [
    [
        *([{"by": "system", "says": ("Be brief.", " ")[i % 2]}] * (i % 3 > 0)),
        {"by": "human", "says": row["prompt"]},
        {"by": "gpt", "says": row["answer"]},
        *([{"by": "human", "says": "Thanks."}] * (i % 2)),
    ]
    for i, row in enumerate(QUESTIONS)
]
OPENHERMES = [
    {"id": i, "conversations": [{"from": t["by"], "value": t["says"]} for t in turns]}
    for i, turns in enumerate(TURNS)
]
ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
MESSAGES = [
    {"messages": [{"role": ROLES[t["by"]], "content": t["says"]} for t in turns]} for turns in TURNS
]
TALKS = [
    ("Be brief.\n\n" if i % 3 > 0 and i % 2 == 0 else "") + row["prompt"]
    for i, row in enumerate(QUESTIONS)
]
TASKS = [row["prompt"] + (f"\n\n{i}" if i % 3 == 2 else "") for i, row in enumerate(QUESTIONS)]
SHAPES: dict[str, tuple[Records, list[str]]] = {
    "alpaca": (ALPACA, TASKS),
    "openhermes": (OPENHERMES, TALKS),
    "messages": (MESSAGES, TALKS),
}


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("form", SHAPES)
def test_every_shape_of_record_gives_its_prompt_and_answer(
    tmp_path: Path, suffix: str, form: Any
) -> None:
    records, expected = SHAPES[form]
    path = write(tmp_path / f"mine{suffix}", records)
    found = everything(Prompts(source=str(path), format=form))
    answers = [row["answer"] for row in QUESTIONS]
    assert {(item.prompt, item.answer) for item in found} == {*zip(expected, answers, strict=True)}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("form", ["fields", *SHAPES])
def test_with_a_teacher_answers_need_not_be_there(tmp_path: Path, suffix: str, form: Any) -> None:
    bare = {
        "fields": [{"prompt": row["prompt"]} for row in QUESTIONS],
        "alpaca": [{"instruction": row["prompt"]} for row in QUESTIONS],
        "openhermes": [
            {"conversations": [{"from": "human", "value": q["prompt"]}]} for q in QUESTIONS
        ],
        "messages": [{"messages": [{"role": "user", "content": q["prompt"]}]} for q in QUESTIONS],
    }
    path = str(write(tmp_path / f"mine{suffix}", bare[form]))
    found = everything(Prompts(source=path, format=form, teacher="base"))
    assert {(i.prompt, i.answer) for i in found} == {(q["prompt"], "") for q in QUESTIONS}
    with pytest.raises(Refusal, match="record 1 of .*; add answers, or have .* prompts.teacher"):
        Prompts(source=path, format=form).items("train", 1, 0, "test")


NO_SHAPE: dict[str, tuple[str, Any, str]] = {
    "no instruction": ("alpaca", {"prompt": "q"}, "'instruction' is not in record 1 of"),
    "input that is no text": (
        "alpaca",
        {"instruction": "q", "input": ["x"], "output": "a"},
        "'input' in record 1 of .* is no text: ",
    ),
    "blank output": ("alpaca", {"instruction": "q", "output": " "}, "'output' in record 1 of"),
    "no turns": (
        "openhermes",
        {"conversations": []},
        "conversations.0 in record .* not there",
    ),
    "no list": ("messages", {"messages": "hi"}, "'messages' in record 1 of .* is no list: 'hi'"),
    "a turn that is no record": (
        "messages",
        {"messages": ["hi", "ho"]},
        "messages.0 in record 1 of .* is by None, but must be by 'user'",
    ),
    "the answer first": (
        "openhermes",
        {"conversations": [{"from": "gpt", "value": "a"}]},
        "conversations.0 in record 1 of .* is by 'gpt', but must be by 'human'",
    ),
    "two questions": (
        "openhermes",
        {"conversations": [{"from": "human", "value": "q"}] * 2},
        "conversations.1 in record 1 of .* is by 'human', but must be by 'gpt'",
    ),
    "parts": (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "'messages.0.content' in record 1 of .* is no text",
    ),
    "half a character": ("alpaca", {"instruction": "\ud800", "output": "a"}, "is no text"),
    "a number": ("openhermes", 3, "'conversations' is not in record 1 of .*; it has int"),
}


@pytest.mark.parametrize(("form", "record", "said"), NO_SHAPE.values(), ids=NO_SHAPE)
def test_a_record_of_another_shape_is_refused(
    tmp_path: Path, form: Any, record: Any, said: str
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([record]))
    with pytest.raises(Refusal, match=f"^prompts.format: .*{said}"):
        Prompts(source=str(path), format=form).items("train", 1, 0, "test")


@pytest.mark.parametrize("key", ["prompt", "answer"])
def test_fields_are_not_named_for_a_format_that_knows_them(key: str) -> None:
    named: dict[str, Any] = {key: "q"}
    with pytest.raises(ValidationError, match="format alpaca knows its fields"):
        Prompts(source="mine.json", format="alpaca", **named)
    with pytest.raises(ValidationError, match="source toy has no records"):
        Prompts(format="alpaca")


BROKEN: dict[str, tuple[str, dict[str, str], str]] = {
    "index past the end": ('{"prompt": "p", "answer": []}', {"answer": "answer.0"}, "answer.0"),
    "index of text": ('{"prompt": "p", "answer": "a"}', {"answer": "answer.0"}, "answer.0"),
    "power of an index": ('{"prompt": "p", "answer": ["a"]}', {"answer": "answer.⁰"}, "answer.⁰"),
    "record that is a number": ("3", {}, "it has int"),
    "empty text": ('{"prompt": " ", "answer": "a"}', {}, "is no text: ' '"),
    "null": ('{"prompt": null, "answer": "a"}', {}, "is no text: None"),
    "half a character": (r'{"prompt": "\ud800", "answer": "a"}', {}, r"is no text: '\ud800'"),
}


@pytest.mark.parametrize(("line", "fields", "said"), BROKEN.values(), ids=BROKEN)
def test_a_record_without_text_is_refused(
    tmp_path: Path, line: str, fields: dict[str, Any], said: str
) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(Refusal, match="record 1 of .*mine.jsonl") as caught:
        Prompts(source=str(path), **fields).items("train", 1, 0, "test")
    assert said in str(caught.value)


def test_a_refusal_counts_records_and_lines_from_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    for last, said in (('{"prompt": "q"}', "record 2 of"), ('{"prompt": ', "line 3: ")):
        path.write_text(f'{{"prompt": "q", "answer": "a"}}\n\n{last}\n', encoding="utf-8")
        with pytest.raises(Refusal, match=said):
            Prompts(source=str(path)).items("train", 1, 0, "test")


def test_every_reason_to_refuse_a_file_names_it(tmp_path: Path) -> None:
    contents: dict[str, bytes] = {
        "latin.jsonl": b'{"prompt": "\xe9", "answer": "a"}',
        "cut.jsonl": b'{"prompt": "q"',
        "deep.json": b"[" * 100_000,
        "digits.json": b"[" + b"9" * 10_000 + b"]",
        "empty.parquet": b"",
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(Refusal, match=f"prompts.source: .*{name} cannot be read"):
            Prompts(source=str(path)).items("train", 1, 0, "test")


def shared(name: str) -> str:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"no {name} beside the checkout")
    return str(path)


REAL: dict[str, Callable[[], Prompts]] = {
    "gsm8k": lambda: Prompts(
        source=shared("gsm8k_train.jsonl"), prompt="question", answer="answer"
    ),
    "alpaca": lambda: Prompts(
        source=shared("alpaca_seed_tasks.jsonl"),
        prompt="instruction",
        answer="instances.0.output",
    ),
}


@pytest.mark.parametrize("make", REAL.values(), ids=REAL)
def test_real_data_is_read(make: Callable[[], Prompts]) -> None:
    prompts = make()
    found = everything(prompts)
    assert len({item.prompt for item in found}) == len(found) > 150
    assert all(item.prompt.strip() and item.answer.strip() for item in found)
    train = {item.prompt for item in prompts.items("train", size(prompts, "train"), 1, "test")}
    held = {item.prompt for item in prompts.items("heldout", size(prompts, "heldout"), 1, "test")}
    assert not train & held


def test_with_a_teacher_the_toy_world_gives_no_answers() -> None:
    taught, own = (Prompts(teacher=who).items("train", 20, 0, "test") for who in ("base", None))
    assert [item.prompt for item in taught] == [item.prompt for item in own]
    assert {item.answer for item in taught} == {""}
    assert "" not in {item.answer for item in own}
