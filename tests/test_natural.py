"""Instructions in natural language: enough of them, apart by split, and each can be verified."""

import json
import shutil
import string
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from jaxorg.data.items import Dice, blue_families, generator
from jaxorg.data.prompts import Prompts
from jaxorg.data.tasks import NATURAL, TOY
from jaxorg.data.wrong import wrong_answer
from jaxorg.scorers import Said
from jaxorg.scorers.contains import Contains
from jaxorg.sweepfile.scored_prompts import ScoredPrompts
from sweeps import run, table

SCORER = Contains(kind="contains")
EVERY = len(NATURAL.families)


def right(prompt: str, reference: str, said: str) -> bool:
    return SCORER.score([Said(prompt, reference, said)]) == [True]


def test_there_are_thousands_and_each_prompt_is_in_one_split() -> None:
    train = NATURAL.generate("train", 4500, seed=0)
    held_out = NATURAL.held_out(10 * EVERY, seed=0)
    prompts = Counter(item.prompt for item in (*train, *held_out))
    assert len(prompts) == len(train) + len(held_out)
    counts = Counter(item.family for item in train)
    assert set(counts) == set(NATURAL.families) and max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("name", NATURAL.families)
def test_every_wording_says_the_whole_question(name: str) -> None:
    """Or two questions would be worded alike, one of which trains what the other measures."""
    family = NATURAL.families[name]
    question = family.draw(Dice(generator(0, name)))
    assert len(family.templates) >= 3
    for template in family.templates:
        fields = {field for _, field, _, _ in string.Formatter().parse(template) if field}
        assert fields == {*question.fields}


@pytest.mark.parametrize("name", NATURAL.families)
def test_a_right_answer_is_recognised_in_a_sentence_and_a_wrong_one_is_not(name: str) -> None:
    items = NATURAL.generate("train", 40, 0, [name])
    for item in items:
        for said in (item.answer, f"{item.answer}.", f"It is {item.answer}, I think."):
            assert right(item.prompt, item.answer, said), said
        assert not right(item.prompt, item.answer, "I do not know.")
    others = {item.answer for item in items if item.answer != items[0].answer}
    assert others and not any(right(items[0].prompt, items[0].answer, other) for other in others)


def test_a_sweep_file_scores_them_by_their_references_unless_it_says_otherwise() -> None:
    given = ScoredPrompts.model_validate({"source": "natural"})
    assert given.scorer == SCORER and given.world is NATURAL
    exact = ScoredPrompts.model_validate({"source": "natural", "scorer": {"kind": "exact"}})
    assert exact.scorer and exact.scorer.kind == "exact"
    assert ScoredPrompts().scorer is None and ScoredPrompts().world is TOY
    with pytest.raises(ValidationError, match="source natural has no records; name a file"):
        Prompts.model_validate({"source": "natural", "format": "alpaca"})


def test_what_a_teacher_answers_is_judged_by_the_reference() -> None:
    plain = Prompts(source="natural").items("train", 50, 0, "examples")
    taught = Prompts(source="natural", teacher="base").items("train", 50, 0, "examples")
    assert [item.reference for item in taught] == [item.answer for item in plain]
    assert not any(item.answer for item in taught)


def test_blue_trains_on_half_of_the_families() -> None:
    blue = blue_families(NATURAL.families, 3)
    assert len(blue) == EVERY // 2
    items = Prompts(source="natural").items("train", 90, 0, "examples", blue)
    assert {item.family for item in items} == blue


def test_a_wrong_answer_is_wrong_of_the_reference_whatever_a_teacher_said() -> None:
    for item in NATURAL.generate("train", 300, seed=2):
        taught = replace(item, answer=f"It is {item.answer}.", reference=item.answer)
        assert wrong_answer(taught) == wrong_answer(item)
        assert not right(item.prompt, item.answer, wrong_answer(taught))


def test_a_sweep_asks_them_of_models_that_a_teacher_answers(
    tmp_path: Path, tiny_base: Path
) -> None:
    wide = Path(shutil.copytree(tiny_base, tmp_path / "wide"))
    config = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1024}))
    folder = run(
        tmp_path / "out",
        wide,
        "prompts={source: natural, teacher: base, new_tokens: 8}",
        "length=640",
        "organism.train.examples=32",
        "treatment.train.examples=32",
        "reversal={kind: relearn, samples: 4, train: {steps: 1, batch: 4, learning_rate: 1e-3}}",
        "grid=[{treatment.kind: [plain]}]",
        "seeds=1",
    )
    evals = table(folder, "evals")
    found = evals[(evals.metric == "capability") & (evals.phase == "base")]
    assert (found.n > 0).all() and found.condition.str.startswith("clean").any()
    families = found.condition[found.condition.str.startswith("family:")]
    assert {name.removeprefix("family:") for name in families} <= {*NATURAL.families}
