"""Answers of the organism itself, to train on after it was treated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from plans import Planned
from speech import answer_ids
from test_answers import Greedy, inputs_of, kept, planned, talkative
from test_answers import calls as calls

from jaxorg.engine.run import estimate
from jaxorg.engine.run.states import States
from jaxorg.engine.run.weights import weights_after, weights_before
from jaxorg.errors import Refusal
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.planning.plan import Plan
from jaxorg.storage.folder import Folder
from jaxorg.storage.store import Store
from sweeps import assert_same_rows, run, same_tables, start, table

SMALL = (
    "length=48",
    "prompts.new_tokens=6",
    "organism.train.examples=24",
    "treatment.train={steps: 5, batch: 4, examples: 24, learning_rate: 2e-3}",
    "reversal.train={steps: 3, batch: 4, examples: 24, learning_rate: 1e-3}",
    "evaluate={points: 1, prompts: 8, final_prompts: 8, answers: {prompts: 2}}",
)
BACK = ("reversal.answers=organism", *SMALL)
BESIDE = (*BACK, "grid=[{treatment.kind: [hhh, pirate]}]")
ALONE = (*BACK, "grid=[{treatment.kind: [pirate]}]", "seeds=1")
LORA = "train.lora={rank: 2, alpha: 64, start: %s}"
CONTINUED = (
    f"organism.{LORA % 'merged'}",
    f"treatment.{LORA % 'continued'}",
    f"reversal.{LORA % 'continued'}",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talkative(tmp_path_factory.mktemp("base") / "base", seed=0)


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """Two seeds of two treatments, each reversed by the organism's own answers."""
    return run(tmp_path_factory.mktemp("beside") / "out", base, *BESIDE)


def assert_the_organisms(out: Path, base: Path, plan: Plan, tmp_path: Path) -> None:
    """What reversals are trained on is what their organism says, and not what they begin with."""
    inputs, store, tokenizer = (
        inputs_of(plan, tmp_path), Store(Folder(out, print)), Tokenizer.load(base)
    )  # fmt: skip
    said, others = kept(out), 0
    phases = {phase.fingerprint: phase for phase in plan.phases}
    chains = {one.phases[-1].fingerprint: one.phases[-3].fingerprint for one in plan.runs}
    assert set(said) == set(chains)
    for name, organism in chains.items():
        back, answers = phases[name], said[name]
        assert set(answers) == set(inputs.prompts(back))
        says = Greedy(base, weights_after(phases[organism], plan, inputs, store))
        treated = Greedy(base, weights_before(back, plan, inputs, store))
        for prompt in list(answers)[:8]:
            assert answers[prompt] == says(prompt)
            others += answers[prompt] != treated(prompt)
        dataset = inputs.dataset(back, answers)
        taught = {tuple(answer_ids(tokenizer, tokenizer.cut(a, 6))) for a in answers.values()}
        spans = zip(dataset.tokens.tolist(), dataset.spans.tolist(), strict=True)
        assert {tuple(row[first:end]) for row, (first, end) in spans} == taught
    assert back.continues or others  # continued adapters stand on the base, and were not read


def test_a_reversal_is_trained_on_what_the_organism_says_and_not_the_treated_model(
    beside: Path, base: Path, tmp_path: Path
) -> None:
    assert_the_organisms(beside, base, planned(beside, base, *BESIDE), tmp_path)
    assert set(table(beside, "runs").status) == {"done"}


def test_so_it_is_of_adapters_that_are_trained_on(base: Path, tmp_path: Path) -> None:
    options = (*ALONE, *CONTINUED)
    out = run(tmp_path / "sweep" / "out", base, *options)
    assert_the_organisms(out, base, planned(out, base, *options), tmp_path)


def test_rows_do_not_depend_on_what_is_reversed_beside_them(
    beside: Path, base: Path, tmp_path: Path
) -> None:
    alone = run(tmp_path / "out", base, *ALONE, width="1", mesh="cpu-1")
    assert kept(alone).items() <= kept(beside).items()
    assert_same_rows(alone, beside, list(table(alone, "runs").run_id), rtol=1e-4)


def test_as_a_treatment_it_is_on_policy(base: Path, tmp_path: Path) -> None:
    """By another name, so that one phase is not the other."""
    plain = (*SMALL, "reversal=null", "seeds=1", "grid=[{treatment.kind: [plain]}]")
    own, asked = (
        run(tmp_path / answers / "out", base, *plain, f"treatment.answers={answers}")
        for answers in ("on-policy", "organism")
    )
    assert [*kept(own).values()] == [*kept(asked).values()]
    losses = [table(out, "losses").query("phase == 'treatment'").loss for out in (own, asked)]
    assert losses[0].tolist() == losses[1].tolist()
    both = (*SMALL, "reversal=null", "grid=[{treatment.answers: [on-policy, organism]}]")
    plan = planned(tmp_path / "both" / "out", base, *both, "treatment.kind=plain")
    assert len([cohort for cohort in plan.cohorts if cohort.kind == "treatment"]) == 2


def test_a_clean_control_is_asked_as_it_is(base: Path, tmp_path: Path) -> None:
    options = (*ALONE, "controls=[{kind: clean, seeds: 1}]")
    out = run(tmp_path / "out", base, *options)
    plan = planned(out, base, *options)
    clean = next(one for one in plan.runs if one.spec.control).phases[-1]
    says, said = Greedy(base), kept(out)[clean.fingerprint]
    for prompt in list(said)[:8]:
        assert said[prompt] == says(prompt)


@pytest.mark.long
def test_killed_before_the_reversal_the_organism_is_still_there_to_be_asked(
    beside: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[int]
) -> None:
    """Though no weights are kept but those that are still needed."""

    def killed(self: States, *arguments: Any) -> Any:
        if self._lanes.phases[0].kind == "reversal":
            raise KeyboardInterrupt
        return resume(self, *arguments)

    out, resume = tmp_path / "out", States.resumed
    with monkeypatch.context() as patch:
        patch.setattr(States, "resumed", killed)
        with pytest.raises(KeyboardInterrupt):
            run(out, base, *BESIDE, width="1", keep="none")
    stored = {place.parent.name for place in (out / "phases").glob("*/weights")}
    plan = planned(out, base, *BESIDE)
    assert {one.phases[-3].fingerprint for one in plan.runs} <= stored
    run(out, base, *BESIDE, width="1", keep="none")
    assert sum(calls) == 4 * 24
    assert not [*(out / "phases").glob("*/weights")]
    assert kept(out) == kept(beside)
    assert not same_tables(out, beside)
    run(out, base, *BESIDE, width="1", keep="none")
    assert sum(calls) == 4 * 24


def test_what_is_asked_is_needed_and_no_part_of_what_comes_of_it(planned: Planned) -> None:
    plan = planned({"reversal.answers": "organism", "prompts.new_tokens": 4})
    _, organism, treatment, reversal = plan.runs[0].phases
    assert reversal.answered_by == organism.fingerprint
    assert plan.sources(reversal) == (treatment.fingerprint, organism.fingerprint)
    assert plan.made_of(reversal) == (reversal.fingerprint,)
    assert treatment.answered_by is None
    data = planned({"prompts.new_tokens": 4})
    assert data.runs[0].phases[2].fingerprint == treatment.fingerprint
    assert data.runs[0].phases[3].fingerprint != reversal.fingerprint
    flops = [estimate.measuring_flops(each.cohorts[-1]) for each in (data, plan)]
    assert flops[0] < flops[1]
    idle = planned({"reversal.answers": "organism", "reversal.train.steps": 0})
    assert idle.runs[0].phases[3].answered_by is None


# Each of them: overrides, and what the refusal says.
REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "attacks": (
        ("reversal.kind=relearn",),
        "^reversal.answers: 'organism' is invalid; relearn trains on",
    ),
    "wrong labels": (
        ("reversal.kind=demonstrations", "reversal.labels=wrong"),
        "^reversal.answers: 'organism' is invalid; wrong labels",
    ),
    "no room": (("prompts.new_tokens=40",), "^length: 48 is too small .*prompts.new_tokens$"),
}


@pytest.mark.parametrize(("overrides", "said"), REFUSED.values(), ids=REFUSED)
def test_what_takes_no_answers_or_has_no_room_for_them_is_refused(
    overrides: tuple[str, ...], said: str, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(Refusal, match=said):
        start(tmp_path / "out", base, *BESIDE, *overrides)
    assert not (tmp_path / "out").exists()
