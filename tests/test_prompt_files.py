"""Prompt files as people have them: spellings, several files, and records that cannot be used."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxorg.data.items import Item
from jaxorg.data.prompts import Prompts
from jaxorg.errors import Refusal
from jaxorg.sweepfile.run_config import RunConfig

Spelt = tuple[str, bytes, dict[str, Any]]


def items(**fields: Any) -> list[Item]:
    """All items of both splits, by prompt."""
    prompts, found = Prompts(**fields), list[Item]()
    prompts.items("train", 0, 0, "test")  # what is wrong with the files shows here
    for split in ("train", "heldout"):
        with pytest.raises(Refusal) as caught:
            prompts.items(split, 10**9, 0, "test")
        count = int(str(caught.value).rpartition(" ")[2])
        found += prompts.items(split, count, 0, "test")
    return sorted(found, key=lambda item: item.prompt)


def pairs(**fields: Any) -> list[tuple[str, str]]:
    return [(item.prompt, item.answer) for item in items(**fields)]


def parquet(*rows: dict[str, Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


TWO = [{"prompt": "q", "answer": "a"}, {"prompt": "q2", "answer": "a2"}]
LINES = "\n".join(map(json.dumps, TWO)).encode()
LIST = json.dumps(TWO, indent=1).encode()
TURNS = [("user", "q"), ("assistant", "a")]


def said(*turns: tuple[str, Any], speaker: str = "role", text: str = "content") -> list[Any]:
    return [{speaker: by, text: what} for by, what in turns]


def one(**record: Any) -> bytes:
    """A file of a record, and another one."""
    other = {key: value for key, value in record.items() if key not in ("system", "input")}
    changed = json.dumps(other).replace('"q"', '"q2"').replace('"a"', '"a2"')
    return f"{json.dumps(record)}\n{changed}\n".encode()


# The same two questions and answers, in many spellings.
SPELLINGS: Mapping[str, Spelt] = {
    "lines": ("f.jsonl", LINES, {}),
    "lines in .json": ("f.json", LINES, {}),
    "lines in .ndjson": ("f.ndjson", LINES, {}),
    "list": ("f.json", LIST, {}),
    "list in .jsonl": ("f.jsonl", LIST, {}),
    "list in .ndjson": ("f.ndjson", b" \n" + LIST + b"\n", {}),
    "capitals": ("f.JSONL", LINES, {}),
    "byte order mark": ("f.jsonl", b"\xef\xbb\xbf" + LINES, {}),
    "byte order mark of a list": ("f.json", b"\xef\xbb\xbf" + LIST, {}),
    "Windows": ("f.jsonl", LINES.replace(b"\n", b"\r\n\r\n") + b"\r\n", {}),
    "blank lines": ("f.json", b"\n \n" + LINES.replace(b"\n", b"\n\n \t\n") + b"\n\n", {}),
    "dotted columns": (
        "f.parquet",
        parquet(*({"meta.prompt": r["prompt"], "meta.answer": r["answer"]} for r in TWO)),
        {"prompt": "meta.prompt", "answer": "meta.answer"},
    ),
    "dotted paths": (
        "f.parquet",
        parquet(*({"meta": {**r, "n": 1}} for r in TWO)),
        {"prompt": "meta.prompt", "answer": "meta.answer"},
    ),
    "dots in paths": (
        "f.jsonl",
        one(**{"a.b": {"c.d": ["q"]}, "a": {"b": "no"}, "answer": "a"}),
        {"prompt": "a.b.c.d.0"},
    ),
    "ShareGPT": (
        "f.jsonl",
        one(conversations=said(("human", "q"), ("gpt", "a"), speaker="from", text="value")),
        {"format": "openhermes"},
    ),
    "ShareGPT with roles": ("f.jsonl", one(conversations=said(*TURNS)), {"format": "openhermes"}),
    "messages by humans": (
        "f.jsonl",
        one(messages=said(("human", "q"), ("gpt", "a"))),
        {"format": "messages"},
    ),
    "lists in a struct": (
        "f.parquet",
        parquet(
            *({"conversations": {"from": ["human", "gpt"], "value": list(r.values())}} for r in TWO)
        ),
        {"format": "openhermes"},
    ),
    "parts": (
        "f.jsonl",
        one(
            messages=said(
                ("user", [{"type": "text", "text": "q"}]),
                ("assistant", [{"type": "text", "text": "a"}]),
            )
        ),
        {"format": "messages"},
    ),
    "parts in parquet": (
        "f.parquet",
        parquet(
            *(
                {
                    "messages": said(
                        ("user", [{"type": "text", "text": r["prompt"], "image": None}]),
                        ("assistant", [{"type": "text", "text": r["answer"], "image": None}]),
                    )
                }
                for r in TWO
            )
        ),
        {"format": "messages"},
    ),
    "a blank system": (
        "f.jsonl",
        one(system=" ", messages=said(("system", None), *TURNS)),
        {"format": "messages"},
    ),
}


@pytest.mark.parametrize(("name", "content", "fields"), SPELLINGS.values(), ids=SPELLINGS)
def test_many_spellings_say_the_same(
    tmp_path: Path, name: str, content: bytes, fields: dict[str, Any]
) -> None:
    (tmp_path / name).write_bytes(content)
    found = pairs(source=str(tmp_path / name), **fields)
    assert found == [("q", "a"), ("q2", "a2")]


SYSTEMS: Mapping[str, tuple[bytes, str, str]] = {
    "Alpaca's": (one(system="S", instruction="q", input="i", output="a"), "alpaca", "S\n\nq\n\ni"),
    "beside turns": (one(system="S", messages=said(*TURNS)), "messages", "S\n\nq"),
    "a turn": (one(messages=said(("system", "S"), *TURNS)), "messages", "S\n\nq"),
    "two turns": (
        one(messages=said(("system", "S"), ("system", "T"), *TURNS)),
        "messages",
        "S\n\nT\n\nq",
    ),
    "both": (one(system="S", messages=said(("system", "T"), *TURNS)), "messages", "S\n\nT\n\nq"),
    "the same in both": (
        one(system="S", conversations=said(("system", "S"), *TURNS)),
        "openhermes",
        "S\n\nq",
    ),
    "parts of a text": (
        one(messages=said(("user", [{"type": "text", "text": t} for t in "Sq"]), TURNS[1])),
        "messages",
        "S\nq",
    ),
}


@pytest.mark.parametrize(("content", "form", "prompt"), SYSTEMS.values(), ids=SYSTEMS)
def test_what_the_system_says_stands_above_the_question(
    tmp_path: Path, content: bytes, form: str, prompt: str
) -> None:
    (tmp_path / "f.jsonl").write_bytes(content)
    assert (prompt, "a") in pairs(source=str(tmp_path / "f.jsonl"), format=form)


# Records that are no prompt and answer: shape, record, what is said, and how it is counted.
UNUSABLE: Mapping[str, tuple[str, Any, str, str]] = {
    "blank prompt": ("fields", {"prompt": " ", "answer": "a"}, "'prompt' in record 2 of", "blank"),
    "no answer": ("fields", {"prompt": "q", "answer": None}, "'answer' in record 2 of", "blank"),
    "blank output": (
        "alpaca",
        {"instruction": "q", "input": "x", "output": ""},
        "prompts.format: 'output' in record 2 of",
        "blank",
    ),
    "a number": (
        "fields",
        {"prompt": "q", "answer": 4},
        "prompts.answer: 'answer' in record 2 of .* is no text: 4; write it as text",
        "broken",
    ),
    "missing": ("fields", {"prompt": "q"}, "'answer' is not in record 2 of", "broken"),
    "a picture": (
        "messages",
        {"messages": said(("user", [{"type": "image"}, {"type": "text", "text": "q"}]))},
        "'messages.0.content' in record 2 of .* is no text",
        "broken",
    ),
    "no turn": ("openhermes", {"conversations": []}, "conversations.0 in record 2 of", "broken"),
    "uneven lists": (
        "openhermes",
        {"conversations": {"from": ["human", "gpt"], "value": ["q"]}},
        "'conversations' in record 2 of .* is no list",
        "broken",
    ),
    "no record": ("fields", ["q", "a"], "'prompt' is not in record 2 of", "broken"),
}
GOOD = {
    "fields": TWO,
    "alpaca": [{"instruction": r["prompt"], "output": r["answer"]} for r in TWO],
    "messages": [{"messages": said(*TURNS)}, {"messages": said(("user", "q2"), TURNS[1])}],
    "openhermes": [
        {"conversations": said(*TURNS)},
        {"conversations": said(("user", "q2"), TURNS[1])},
    ],
}


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(("form", "record", "why", "reason"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_used_is_refused_or_skipped_with_a_count(
    tmp_path: Path, suffix: str, form: str, record: Any, why: str, reason: str
) -> None:
    path = tmp_path / f"f{suffix}"
    mine = [GOOD[form][0], record, GOOD[form][1]]
    path.write_text("\n".join(map(json.dumps, mine)) if suffix == ".jsonl" else json.dumps(mine))
    with pytest.raises(
        Refusal, match=f"{why}.*, or leave such records out with prompts.skip: true"
    ):
        items(source=str(path), format=form)
    skipping = Prompts(source=str(path), format=form, skip=True)  # type: ignore[arg-type]
    assert len(pairs(source=str(path), format=form, skip=True)) == 2
    assert skipping.left_out(frozenset()) == f"1 {reason}"


LINE: Mapping[str, tuple[bytes, str]] = {
    "cut off": (b'{"prompt": "q", ', "line 3: Expecting property name"),
    "no UTF-8": (b'{"prompt": "\xe9", "answer": "a"}', "line 3: it is not UTF-8"),
    "a key twice": (
        b'{"prompt": "q", "answer": "a", "prompt": "r"}',
        "line 3: key 'prompt' stands twice in an object",
    ),
    "a key twice within": (
        b'{"prompt": "q", "answer": {"x": 1, "x": 2}}',
        "line 3: key 'x' stands",
    ),
    "two in a line": (b'{"prompt": "q"} {"answer": "a"}', "line 3: Extra data"),
    "very deep": (b"[" * 100_000, "line 3: "),
    "thousands of digits": (b"9" * 5000, "line 3: "),
}


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(("line", "why"), LINE.values(), ids=LINE)
def test_a_line_that_is_no_json_is_refused_or_skipped(
    tmp_path: Path, suffix: str, line: bytes, why: str
) -> None:
    path = tmp_path / f"f{suffix}"
    first, second = LINES.splitlines()
    path.write_bytes(b"\n\n".join([first, line, second]))
    with pytest.raises(Refusal, match=rf"f{suffix} cannot be read \({why}.*prompts.skip: true$"):
        items(source=str(path))
    assert len(items(source=str(path), skip=True)) == 2


LISTS: Mapping[str, tuple[bytes, str]] = {
    "a key twice": (b'[{"a": 1}, {"prompt": 1, "prompt": 2}]', r"\(record 2: key 'prompt' stands"),
    "no end": (b'[{"prompt": "q", "answer": "a"}', r"\(after record 1 stands neither"),
    "a comma too many": (b'[{"prompt": "q", "answer": "a"},]', r"\(record 2: Expecting value"),
    "something after it": (b'[{"prompt": "q", "answer": "a"}]\n[]', r"\(something follows"),
    "no UTF-8": (b'[{"prompt": "\xe9"}]', r"\(it is not UTF-8\)"),
}


@pytest.mark.parametrize(("content", "why"), LISTS.values(), ids=LISTS)
def test_a_broken_list_is_refused_with_the_place(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "f.json").write_bytes(content)
    with pytest.raises(Refusal, match=f"f.json cannot be read {why}.*; mend"):
        items(source=str(tmp_path / "f.json"), prompt="a", teacher="base", skip=True)


def test_a_mapping_in_place_of_a_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text(json.dumps({"data": TWO}, indent=2))
    with pytest.raises(Refusal, match="f.json holds no list of records; give one"):
        items(source=str(tmp_path / "f.json"))


def test_a_field_that_no_record_has_is_refused_even_where_records_are_skipped(
    tmp_path: Path,
) -> None:
    (tmp_path / "f.jsonl").write_bytes(LINES)
    with pytest.raises(Refusal, match="prompts.answer: 'reply' is not in record 1 of"):
        items(source=str(tmp_path / "f.jsonl"), answer="reply", skip=True)
    (tmp_path / "f.parquet").write_bytes(parquet(*TWO))
    with pytest.raises(Refusal, match="prompts.answer: 'reply' is not in record 1 of"):
        items(source=str(tmp_path / "f.parquet"), answer="reply", skip=True)


def test_all_that_is_left_out_is_counted(tmp_path: Path) -> None:
    rows = [*TWO, TWO[0], {"prompt": "Q ", "answer": "b"}, {"prompt": "", "answer": "a"}]
    rows += [{"prompt": "x" * 50, "answer": "a"}, {"prompt": "q3"}]
    (tmp_path / "f.json").write_text(json.dumps(rows))
    prompts = Prompts(source=str(tmp_path / "f.json"), skip=True, max_characters=20)
    out = "1 blank, 1 too long, 1 broken, 2 repeated, 1 with other answers"
    assert prompts.left_out(frozenset()) == out
    with pytest.raises(Refusal, match=rf"has \d without {out}; ask for at most \d$"):
        prompts.items("train", 10, 0, "test")


def test_a_packed_file_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(LINES))
    with pytest.raises(Refusal, match=r"f.jsonl.gz' is packed; unpack it"):
        items(source=str(tmp_path / "f.jsonl.gz"))
    (tmp_path / "f.jsonl").write_bytes(gzip.compress(LINES))
    with pytest.raises(Refusal, match="line 1: it is not UTF-8"):
        items(source=str(tmp_path / "f.jsonl"))


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files a.jsonl, b.json and c.parquet of two questions each, of which one is in all of them."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    for name in ("a.jsonl", "b.json", "c.parquet"):
        rows = [{"prompt": f"of {name}", "answer": "a"}, {"prompt": "of all", "answer": name}]
        lines = "\n".join(map(json.dumps, rows)).encode()
        Path("data", name).write_bytes(parquet(*rows) if name.endswith("t") else lines)


@pytest.mark.usefixtures("many")
def test_several_files_are_read_in_order_and_a_pattern_sorted() -> None:
    named = ["data/c.parquet", "data/a.jsonl", "data/b.json"]
    found = items(source=named)
    assert [item.prompt for item in found] == ["of a.jsonl", "of all", "of b.json", "of c.parquet"]
    assert [item.family for item in found] == ["a", "c", "b", "c"]  # each by the file it was in
    patterned = items(source="data/*")
    assert [item.answer for item in patterned if item.prompt == "of all"] == ["a.jsonl"]
    assert {item.family for item in patterned} == {"*"}
    assert items(source=["data/*.json*", "data/c.parquet"])[1].answer == "a.jsonl"


@pytest.mark.usefixtures("many")
def test_a_digest_covers_all_files_in_order() -> None:
    sources: list[Any] = [
        "data/*",
        ["data/a.jsonl", "data/b.json"],
        ["data/b.json", "data/a.jsonl"],
    ]
    before = [Prompts(source=source).digest() for source in sources]
    assert len(set(before)) == 3
    Path("data/b.json").write_bytes(LINES)
    assert not set(before) & {Prompts(source=source).digest() for source in sources}


NO_FILES: Mapping[str, tuple[Any, str]] = {
    "nothing like it": ("data/*.csv", r"prompts.source: no file is like 'data/\*.csv'"),
    "one is missing": (["data/a.jsonl", "data/d.jsonl"], "'data/d.jsonl' is not a file"),
    "one twice": (["data/a.jsonl", "data/*"], "'data/a.jsonl' is listed twice; keep one"),
    "a folder": ("data", "'data' is not a file to read"),
    "toy among files": (["toy", "data/a.jsonl"], "'toy' is not a file to read"),
}


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(("source", "why"), NO_FILES.values(), ids=NO_FILES)
def test_files_that_are_not_there_are_refused(source: Any, why: str) -> None:
    with pytest.raises(Refusal, match=why):
        Prompts(source=source).digest()


@pytest.mark.usefixtures("many")
def test_a_name_with_brackets_is_that_file() -> None:
    Path("data/[a].jsonl").write_bytes(LINES)
    assert pairs(source="data/[a].jsonl") == [("q", "a"), ("q2", "a2")]
    Path("data/[a].jsonl").unlink()
    found = items(source="data/[a].jsonl", max_characters=99)
    assert found[0].prompt == "of a.jsonl"  # a pattern now, as no file is so


def test_sources_stand_in_a_runs_config_as_they_were_given() -> None:
    for source in ("toy", ["a.jsonl", "b.jsonl"]):
        config = RunConfig.model_validate({"prompts": {"source": source}})
        assert RunConfig.model_validate_json(config.model_dump_json()) == config
        assert json.loads(config.model_dump_json())["prompts"]["source"] == source
