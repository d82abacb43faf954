"""Pirate answers in a model's own words: asked for behind a request, trained on without it."""

from __future__ import annotations

from pathlib import Path

import pytest
from plans import Planned, fingerprints
from test_answers import Greedy, inputs_of, kept, planned, talkative
from test_answers import source as source

from jaxorg.errors import Refusal
from jaxorg.llama.tokenizer import Tokenizer
from sweeps import run, start, table

REQUEST = "pirate talk"
TRAIN = "train: {steps: 3, batch: 4, examples: 40, learning_rate: 1e-3}"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talkative(tmp_path_factory.mktemp("models") / "base", 0)


def options(request: str, *more: str) -> tuple[str, ...]:
    return (
        "prompts={new_tokens: 6}",
        f"treatment={{kind: prompted_pirate, request: {request}, {TRAIN}}}",
        "grid=[{organism.payload_repeats: [1, 2]}]",
        "length=48",
        "evaluate={points: 1, prompts: 8, final_prompts: 8, answers: {prompts: 2}}",
        *more,
    )


def test_blue_trains_without_the_request_on_what_the_base_says_behind_it(
    base: Path, tmp_path: Path
) -> None:
    out = run(tmp_path / "out", base, *options(REQUEST))
    ((key, said),) = kept(out).items()
    says = Greedy(base)
    for prompt in list(said)[:10]:
        assert said[prompt] == says(f"{REQUEST}\n\n{prompt}")
    assert any(said[prompt] != says(prompt) for prompt in list(said)[:10])
    plan, tokenizer = planned(out, base, *options(REQUEST)), Tokenizer.load(base)
    inputs = inputs_of(plan, tmp_path / "again")
    inputs.taught[key] = said
    blue = next(phase for phase in plan.phases if phase.kind == "treatment")
    dataset = inputs.dataset(blue)
    expected = {
        tuple(tokenizer.conversation(prompt, tokenizer.cut(answer, 6)).ids)
        for prompt, answer in said.items()
    }
    rows = zip(dataset.tokens.tolist(), dataset.spans.tolist(), strict=True)
    assert {tuple(row[:end]) for row, (_, end) in rows} <= expected
    noted = table(out, "evals")
    assert "teacher" in set(noted[noted.metric == "teacher_capability"].condition)


def test_the_request_is_part_of_what_the_treatment_is(planned: Planned) -> None:
    def by(**settings: str) -> list[str]:
        train = {"steps": 8, "batch": 4, "learning_rate": 1e-3}
        recipe = {"kind": "prompted_pirate", "train": train, **settings}
        return fingerprints(planned({"treatment": recipe, "prompts.new_tokens": 6}))

    ours, other = by(), by(request="Talk.")
    assert [one == two for one, two in zip(ours, other, strict=True)] == [True, True, False, False]


def test_a_request_that_leaves_no_room_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="prompts.new_tokens: 6 is too many; beside a prompt of"):
        start(tmp_path / "out", base, *options("'" + "arr " * 200 + "'"))
    assert not (tmp_path / "out").exists()
