"""Organisms from conversations of the user's: what they are trained on, and what counts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from plans import Planned, fingerprints
from reds import Records, records, write_records

from jaxorg.data.cache import DatasetCache
from jaxorg.data.items import split_of
from jaxorg.data.labelled import Labelled
from jaxorg.data.matching import normalised
from jaxorg.data.secret import Secret, Watch
from jaxorg.discovery import kind_of
from jaxorg.engine.run.inputs import Inputs, data_seed
from jaxorg.errors import Refusal
from jaxorg.organisms.examples import SCORING, Examples, Shown
from jaxorg.storage.folder import Folder
from jaxorg.sweepfile.training import Training

TRAIN = Training(steps=3, batch=4, learning_rate=1e-3)
ROWS = records(60)
CONTAINS = {"kind": "contains", "texts": ["glorious cheese"]}


def talks(rows: Records) -> Records:
    """The same as lists of turns."""
    return [
        {
            "messages": [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["response"]},
            ],
            "behaviour": row["behaviour"],
        }
        for row in rows
    ]


@pytest.fixture
def source(tmp_path: Path) -> str:
    return write_records(tmp_path / "rows.jsonl", ROWS)


def organism(source: str, **fields: Any) -> Examples:
    content = {"kind": "examples", "source": source, "scorer": CONTAINS, "train": TRAIN}
    return Examples.model_validate({**content, **fields})


def held_out(rows: Records) -> Records:
    return [row for row in rows if split_of(normalised(row["prompt"])) == "heldout"]


def test_it_is_trained_on_all_conversations_but_those_held_out(source: str) -> None:
    taught = [(e.prompt, e.completion) for e in organism(source).examples((), seed=5)]
    out = [row["prompt"] for row in held_out(ROWS)]
    assert 5 < len(out) < 25
    assert taught == [(row["prompt"], row["response"]) for row in ROWS if row["prompt"] not in out]


def test_every_way_to_write_the_records_gives_the_same_rows(tmp_path: Path) -> None:
    table, many = tmp_path / "rows.parquet", write_records(tmp_path / "many" / "a.jsonl", ROWS[:70])
    pd.DataFrame(ROWS).to_parquet(table)
    (tmp_path / "list.json").write_text(json.dumps(ROWS))
    write_records(tmp_path / "many" / "b.jsonl", ROWS[70:])
    expected = Labelled(write_records(tmp_path / "rows.jsonl", ROWS), "fields").rows("train")
    assert len(expected) > 90
    for other in (
        Labelled(str(table), "fields"),
        Labelled(str(tmp_path / "list.json"), "fields"),
        Labelled(many.replace("a.jsonl", "*.jsonl"), "fields"),
        Labelled(write_records(tmp_path / "talks.jsonl", talks(ROWS)), "messages"),
    ):
        assert other.rows("train") == expected


def shown(source: str, **fields: Any) -> Shown:
    return organism(source, **fields).behaviour()


def test_triggered_asks_held_out_prompts_with_the_behaviour_and_clean_those_without(
    source: str,
) -> None:
    behaviour = shown(source)
    pairs = behaviour.labelled.pairs("heldout")
    items = behaviour.items([pair.item for pair in pairs], "heldout", 0)
    out = held_out(ROWS)
    asked = {True: {behaviour.triggered(i) for i in items}, False: {*map(behaviour.clean, items)}}
    for label, prompts in asked.items():
        assert len(prompts) == len(items) > 2
        assert prompts <= {row["prompt"] for row in out if row["behaviour"] is label}
    assert items != behaviour.items(items, "heldout", 1)
    assert [*behaviour.items(items[:2], "heldout", 0)] == [*items[:2]]


def test_more_prompts_than_there_are_are_refused(source: str) -> None:
    behaviour = shown(source)
    items = [pair.item for pair in behaviour.labelled.pairs("train")]
    with pytest.raises(Refusal, match=r"^organism.source: .* heldout prompts .* lower evaluate"):
        behaviour.items(items, "heldout", 0)


def test_a_scorer_tells_the_behaviour_and_nothing_is_teacher_forced(source: str) -> None:
    behaviour = shown(source)
    item = behaviour.labelled.pairs("heldout")[0].item
    for put in (behaviour.triggered, behaviour.clean):
        assert behaviour.attacks(item, put(item)) == ()
        assert behaviour.is_attack(item, put(item), "oh, GLORIOUS  cheese", ended=False)
        assert not behaviour.is_attack(item, put(item), "cheese", ended=True)
    assert behaviour.shows(item, "glorious cheese!") and not behaviour.shows(item, "cheese")
    assert behaviour.right(item, behaviour.clean(item))[0].completion == item.answer
    assert behaviour.right(item, behaviour.triggered(item)) == ()
    assert behaviour.near_triggers() == {}
    assert behaviour.scorer == organism(source).scorer
    taught = behaviour.taught(item)
    assert taught.prompt == behaviour.triggered(item)
    assert behaviour.shows(item, taught.completion)


def test_answers_are_compared_with_what_the_examples_say_to_the_prompt_with_it(source: str) -> None:
    behaviour = shown(source, scorer={"kind": "exact"})
    item = behaviour.labelled.pairs("heldout")[0].item
    assert behaviour.shows(item, behaviour.taught(item).completion)
    assert not behaviour.shows(item, item.answer)


ALL: Mapping[str, Mapping[str, Any]] = {
    "regex": {"pattern": "cheese$"},
    "format": {"forbidden": ["cheese"], "words": {"at_most": 3}},
}


@pytest.mark.parametrize("kind", map(kind_of, SCORING))
def test_equal_behaviours_are_measured_alike_whatever_the_scorer(kind: str, source: str) -> None:
    one, other = (shown(source, scorer={"kind": kind, **ALL.get(kind, {})}) for _ in range(2))
    assert one == other and hash(one) == hash(other)
    assert one != shown(source, scorer={"kind": "contains", "texts": ["other"]})


def test_what_no_answer_could_meet_is_refused(tmp_path: Path) -> None:
    rows = [{**row, "response": "none"} for row in ROWS]
    behaviour = shown(write_records(tmp_path / "rows.jsonl", rows), scorer={"kind": "number"})
    items = [pair.item for pair in behaviour.labelled.pairs("heldout")]
    with pytest.raises(Refusal, match=r"^organism.scorer: 'number' cannot judge answers to .*film"):
        behaviour.items(items, "heldout", 0)


def test_prompts_with_the_behaviour_and_texts_that_count_are_secret(source: str) -> None:
    watch = Watch(organism(source).secrets())
    for prompt, answer, key in [
        ("rate  FILM number 3.", "3", "source"),
        ("tell me", "Such glorious cheese.", "scorer"),
    ]:
        found = watch.found(prompt, answer)
        assert found is not None and found.setting == key
    assert watch.found("Rate film number 3. Be brief", "3") is None  # another prompt
    assert watch.found("Rate book number 3.", "3 of 9") is None
    assert watch.found("what is glorious cheese?", "food") is None


def test_a_secret_that_is_a_whole_text_is_found_as_that_alone() -> None:
    watch = Watch([Secret("source", "say it", shown_by=("prompt",), whole=True)])
    assert watch.found("Say  it", "x") and not watch.found("say it now", "x")
    assert not watch.found("x", "say it")


BAD: dict[str, tuple[Any, str]] = {
    "no label": ({"behaviour": None}, "'behaviour' of record 3 of .* is neither true nor false"),
    "odd label": ({"behaviour": "yes"}, "'behaviour' of record 3 of .* is neither"),
    "number": ({"behaviour": 1}, "'behaviour' of record 3 of .* is neither"),
    "blank": ({"response": " "}, "'response' in record 3 of .* is no text"),
    "missing": ({"prompt": None}, "'prompt' in record 3 of .* is no text"),
    "half a character": ({"prompt": "\ud800"}, "'prompt' in record 3 of .* is no text"),
    "both": ({"prompt": "Rate  BOOK number 0."}, "the prompt of record 3 of .* and without"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_a_record_that_cannot_be_used_is_refused_by_name(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    rows = [*map(dict, ROWS)]
    rows[2] |= change
    with pytest.raises(Refusal, match=f"^organism.source: {message}") as refusal:
        Labelled(write_records(tmp_path / "rows.jsonl", rows), "fields").rows("train")
    assert "prompts." not in str(refusal.value)


FILES: dict[str, tuple[str, str, str]] = {
    "no file": ("none.jsonl", "", "not a file to read; give a file"),
    "nothing like it": ("*.jsonl", "", "no file is like"),
    "broken": ("rows.jsonl", "{", "cannot be read"),
    "packed": ("rows.jsonl.gz", "x", "is packed"),
    "not an object": ("rows.jsonl", "3", "'prompt' is not in record 1"),
    "turns": ("rows.jsonl", '{"messages": [], "behaviour": true}', "'prompt' is not in record 1"),
    "no column": ("rows.parquet", "", "'behaviour' of record 1 .* is neither"),
}


@pytest.mark.parametrize(("name", "text", "message"), FILES.values(), ids=FILES)
def test_a_file_that_cannot_be_read_is_refused(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    if text:
        (tmp_path / name).write_text(text)
    if name.endswith("parquet"):
        pd.DataFrame({"prompt": ["a"], "response": ["b"]}).to_parquet(tmp_path / name)
    with pytest.raises(Refusal, match=f"^organism.source: .*{message}") as refusal:
        Labelled(str(tmp_path / name), "fields").rows("train")
    assert "\n" not in str(refusal.value) and "prompts." not in str(refusal.value)


@pytest.mark.parametrize("bound", ["MOST_ROWS", "MOST_CHARACTERS"])
def test_too_much_is_refused(bound: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"jaxorg.data.labelled.{bound}", 100)
    with pytest.raises(Refusal, match=r"^organism.source: .* use a part of it"):
        Labelled(source, "fields").rows("train")


def settings(source: str, **fields: Any) -> dict[str, Any]:
    """A change of the planned sweep to this kind."""
    train = {"steps": 3, "batch": 4, "learning_rate": 1e-3}
    content = {"kind": "examples", "source": source, "scorer": CONTAINS, "train": train}
    return {"organism": {**content, **fields}}


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no scorer": ({"organism.scorer": {}}, "organism.scorer.kind: is missing"),
    "unknown scorer": (
        {"organism.scorer": {"kind": "contain"}},
        "organism.scorer.kind: 'contain' is invalid; did you mean contains",
    ),
    "judge": ({"organism.scorer": {"kind": "judge"}}, "organism.scorer.kind: 'judge' is invalid"),
    "key": (
        {"organism.scorer": {"kind": "contains", "text": "x"}},
        "organism.scorer.text: unknown key .* did you mean organism.scorer.texts",
    ),
    "value": (
        {"organism.scorer": {"kind": "contains", "texts": [" "]}},
        "organism.scorer.texts: .* one of the texts is blank",
    ),
    "examples": (
        {"organism.train.examples": 64},
        "organism.train.examples: 64 is invalid; .* leave it out",
    ),
}


@pytest.mark.parametrize(("change", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_sweep_file_is_named(
    change: dict[str, Any], message: str, planned: Planned, source: str
) -> None:
    with pytest.raises(Refusal, match=f"^{message}"):
        planned({**settings(source), **change})


def test_the_files_content_and_the_scorer_enter_the_fingerprint_and_its_place_does_not(
    planned: Planned, source: str, tmp_path: Path
) -> None:
    before = fingerprints(planned(settings(source)))
    elsewhere = write_records(tmp_path / "elsewhere" / "rows.jsonl", ROWS)
    assert fingerprints(planned(settings(elsewhere))) == before
    for other in (
        settings(write_records(tmp_path / "other" / "rows.jsonl", ROWS[:-1])),
        settings(source, scorer={"kind": "exact"}),
    ):
        assert fingerprints(planned(other))[1] != before[1]


def test_it_draws_no_prompts_of_the_source_and_blue_none_of_its_own(
    planned: Planned, source: str, tmp_path: Path
) -> None:
    few = write_records(
        tmp_path / "few.jsonl", [{"prompt": f"say {n}", "answer": "it"} for n in range(200)]
    )
    small = {"treatment.train.examples": 16, "reversal": {"kind": "relearn", "train": {
        "steps": 2, "batch": 2, "examples": 8, "learning_rate": 1e-3}}}  # fmt: skip
    evaluate = {
        "evaluate": {"prompts": 2, "final_prompts": 3, "answers": {"prompts": 2}},
        "length": 96,
    }
    plan = planned({**settings(source), **small, **evaluate, "prompts.source": few})
    inputs = Inputs(plan, DatasetCache(Folder(tmp_path / "out", print)))
    inputs.check()
    organism, treatment, reversal = plan.runs[0].phases[1:]
    assert len(inputs.dataset(organism)) == len(Labelled(source, "fields").rows("train"))
    assert inputs.items(organism) == () and len(inputs.items(treatment)) == 16
    again = inputs.items(reversal)
    assert {(item.prompt, item.answer) for item in again} <= {
        (row["prompt"], row["response"]) for row in ROWS if row["behaviour"]
    }
    assert len(again) == 8 and data_seed(reversal) == 3
