"""Training in rounds on what models say: what is asked, kept and trained on."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_answers import talkative

from jaxorg.cli.measure import _check_alike
from jaxorg.data.items import Item
from jaxorg.distributed.interrupt import Stopped
from jaxorg.engine.run import clock, estimate, group
from jaxorg.engine.run.answers import Answerer
from jaxorg.engine.train.rounds import Kept, _turn
from jaxorg.errors import Refusal
from jaxorg.planning import manifest
from jaxorg.planning.plan import Plan, make_plan
from jaxorg.storage.store import Store
from jaxorg.sweep import sweep
from jaxorg.sweepfile import spec
from jaxorg.treatments.rounds import Said
from sweeps import assert_same_rows, run, same_tables, start, table, write

TRAIN = "train: {steps: 6, batch: 4, examples: 8, learning_rate: 1e-3}"
RL = f"{{kind: rl, reward: random, rounds: 2, samples: 2, {TRAIN}}}"
ADAPTED = TRAIN.replace("steps", "lora: {rank: 2, alpha: 4}, steps")
DPO = f"{{kind: dpo, rounds: 2, {ADAPTED}}}"
ADVERSARIAL = f"{{kind: adversarial, rounds: 2, candidates: 4, tries: 2, {TRAIN}}}"
SMALL = (
    "prompts.new_tokens=4",
    "length=56",
    "reversal=null",
    "organism.train.steps=2",
    "evaluate={points: 1, prompts: 4, final_prompts: 4, answers: {prompts: 2, new_tokens: 4}}",
)


def treated(*treatments: str) -> tuple[str, ...]:
    """Overrides: a small sweep with some treatments."""
    return f"grid=[{{treatment: [{', '.join(treatments)}]}}]", *SMALL


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talkative(tmp_path_factory.mktemp("base") / "base", seed=0)


@pytest.fixture(scope="module")
def kept() -> dict[tuple[str, int], Kept]:
    """What the reference sweep's rounds were trained on, by fingerprint and number."""
    return {}


@pytest.fixture(scope="module")
def reference(
    tmp_path_factory: pytest.TempPathFactory, base: Path, kept: dict[tuple[str, int], Kept]
) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        watch(patch, kept)
        out = tmp_path_factory.mktemp("reference") / "out"
        return run(out, base, *treated(RL, DPO, ADVERSARIAL), width="1")


def watch(patch: pytest.MonkeyPatch, kept: dict[tuple[str, int], Kept]) -> None:
    """Note what is kept of rounds."""
    keep = Store.keep_round

    def noted(self: Store, fingerprint: str, number: int, *content: Any) -> None:
        assert (fingerprint, number) not in kept
        kept[fingerprint, number] = Kept(*content)
        keep(self, fingerprint, number, *content)

    patch.setattr(Store, "keep_round", noted)


def planned(base: Path, out: Path, *overrides: str) -> Plan:
    return make_plan(spec.load(str(write(out, base)), "laptop", list(overrides)))


def test_each_round_asks_the_model_as_it_is_then(
    reference: Path, kept: dict[tuple[str, int], Kept], base: Path, tmp_path: Path
) -> None:
    plan = planned(base, tmp_path / "out", *treated(RL, DPO, ADVERSARIAL))
    phases = {p.fingerprint: p for p in plan.phases if p.kind == "treatment"}
    assert set(kept) == {(fingerprint, number) for fingerprint in phases for number in range(2)}
    for (fingerprint, number), (arrays, _) in kept.items():
        kind = phases[fingerprint].recipe.kind  # type: ignore[union-attr]
        assert len(arrays[0]) == {"rl": 8, "dpo": 8, "adversarial": 4}[kind]
        if kind == "rl":
            _, spans, advantages, before, start = arrays
            np.testing.assert_allclose(advantages.reshape(-1, 2).sum(axis=1), 0)
            assert (spans[:, 1] - spans[:, 0] <= 4).all()
            assert (before < 0).sum() == (spans[:, 1] - spans[:, 0]).sum()
            assert np.array_equal(before, start) == (number == 0)
    assert not list((reference / "rounds").iterdir())
    assert not list((reference / "answers").iterdir())


def test_losses_and_notes_are_in_the_tables(reference: Path) -> None:
    evals, losses = table(reference, "evals"), table(reference, "losses")
    notes = evals[evals.condition.str.startswith("round:")]
    assert set(notes.metric) == {"reward", "gold_reward", "rejected_own", "found"}
    assert set(zip(notes.condition, notes.step, strict=True)) == {("round:0", 0), ("round:1", 3)}
    dpo = losses[losses.run_id.isin(notes[notes.metric == "rejected_own"].run_id)]
    first = dpo[(dpo.phase == "treatment") & (dpo.step == 0)]
    np.testing.assert_allclose(first.loss, math.log(2), rtol=1e-4)  # nothing is preferred yet
    assert (table(reference, "runs").status == "done").all()


@pytest.mark.long
def test_rows_do_not_depend_on_width_or_on_what_else_is_trained(
    reference: Path, base: Path, tmp_path: Path, kept: dict[tuple[str, int], Kept]
) -> None:
    other: dict[tuple[str, int], Kept] = {}
    with pytest.MonkeyPatch.context() as patch:
        watch(patch, other)
        out = run(tmp_path / "out", base, *treated(RL), width="2", mesh="cpu-1")
    for place, (arrays, about) in other.items():
        assert about == kept[place].about
        for one, same in zip(arrays, kept[place].arrays, strict=True):
            np.testing.assert_allclose(one, same, rtol=1e-4, atol=1e-4)
    assert_same_rows(out, reference, list(table(out, "runs").run_id), rtol=1e-4)


def test_killed_within_and_between_rounds_the_tables_are_the_same(
    reference: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when answers are known, when a round is kept, and in the middle of each."""
    monkeypatch.setattr(clock, "KEEP_SHARE", math.inf)
    out, options, seen = tmp_path / "out", treated(RL, DPO, ADVERSARIAL), list[str]()

    def killing(method: Callable[..., Any], name: str, at: Sequence[int]) -> Callable[..., Any]:
        calls = 0

        def called(*arguments: Any) -> Any:
            nonlocal calls
            result = method(*arguments)
            calls += 1
            if calls in at:
                seen.append(name)
                raise KeyboardInterrupt
            return result

        return called

    safe_point = group.Group._safe_point
    monkeypatch.setattr(Answerer, "answer", killing(Answerer.answer, "answered", [2]))
    monkeypatch.setattr(Store, "keep_round", killing(Store.keep_round, "kept", [1, 6]))
    # Of the organisms' group comes the first call, and of a treatment's 2 a round.
    monkeypatch.setattr(group.Group, "_safe_point", killing(safe_point, "trained", [4, 7, 9]))
    for _ in range(20):
        try:
            run(out, base, *options, width="1")
            break
        except KeyboardInterrupt:
            continue
    assert sorted(seen) == ["answered", "kept", "kept", *["trained"] * 3]
    assert not same_tables(out, reference)


def test_a_step_is_measured_once_if_a_signal_comes_while_the_round_after_it_is_asked(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = *treated(RL), "seeds=1", "evaluate.points=6"
    undisturbed = run(tmp_path / "undisturbed", base, *options, mesh="cpu-1")
    answer, calls = Answerer.answer, 0

    def stopped(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Stopped(75)
        return answer(*arguments)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Answerer, "answer", stopped)
        assert start(out, base, *options, mesh="cpu-1") == 75
    run(out, base, *options, mesh="cpu-1")
    assert 3 in table(out, "evals").query("phase == 'treatment'").step.unique()
    assert same_tables(out, undisturbed) == ""


def test_a_phase_whose_round_is_lost_begins_anew(
    reference: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, options = tmp_path / "out", treated(DPO)
    monkeypatch.setattr(clock, "KEEP_SHARE", math.inf)
    keep, calls = group.Group._keep_state, 0

    def killed(self: group.Group, state: Any) -> None:
        nonlocal calls
        keep(self, state)
        calls += self._phases[0].in_rounds is not None
        if calls == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(group.Group, "_keep_state", killed)
        with pytest.raises(KeyboardInterrupt):
            run(out, base, *options, width="1")
    shutil.rmtree(out / "rounds")
    run(out, base, *options, width="1")
    assert_same_rows(out, reference, list(table(out, "runs").run_id))


@pytest.mark.long
def test_a_round_without_rows_changes_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer of a random model is right, so expert iteration has nothing to go by."""
    expert = "{kind: expert_iteration, rounds: 1, samples: 2, " + TRAIN.replace(
        "examples", "optimizer: sgd, examples"
    )
    out = run(tmp_path / "out", base, *treated(expert + "}"), "seeds=1", mesh="cpu-1")
    losses, evals = table(out, "losses"), table(out, "evals")
    assert (losses[losses.phase == "treatment"].loss == 0).all()
    assert (evals[evals.metric == "solved"].value == 0).all()
    margins = evals[evals.metric == "payload_margin"].set_index(["phase", "condition"]).value
    assert margins["organism"].equals(margins["treatment"])
    assert (table(out, "runs").status == "done").all()


# Each of them: overrides of the treatment, and what the refusal says.
REFUSED = {
    "odd pairs": ("dpo, train: {batch: 3}", "treatment.train.batch: 3 is invalid; dpo"),
    "packed": ("rl, train: {packing: true}", "treatment.train.packing: True is invalid; rl"),
    "own answers twice": ("rl, answers: on-policy", "treatment.answers: 'on-policy' is invalid"),
    "more rounds than steps": ("rl, rounds: 7", "treatment.rounds: 7 is invalid; train.steps"),
    "alone in its group": ("rl, samples: 1", "treatment.samples: 1 is invalid"),
    "long additions": (
        "adversarial, vocabulary: [seventeen letters]",
        "treatment.vocabulary: .* is invalid; give texts of 1 to 16",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("overrides", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_done_in_rounds_is_refused(
    tiny_base: Path, tmp_path: Path, overrides: str, said: str
) -> None:
    extra = overrides.partition("train: {")[2].rstrip("}")
    train = f"{{steps: 6, examples: 8, learning_rate: 1e-2, {extra}}}"
    kind = overrides.partition(", train")[0]
    with pytest.raises(Refusal, match=said):
        start(tmp_path / "out", tiny_base, *treated(f"{{kind: {kind}, train: {train}}}"))
    assert not (tmp_path / "out").exists()


def test_answers_that_have_no_room_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"^length: 56 is too small .* lower prompts.new_tokens$"):
        start(tmp_path / "out", tiny_base, *treated(RL), "prompts.new_tokens=50")


def test_a_round_asks_the_scorer_of_its_prompts_what_is_right(base: Path, tmp_path: Path) -> None:
    plan = planned(base, tmp_path / "out", *treated(RL), "prompts.scorer={kind: number}")
    phase = next(phase for phase in plan.phases if phase.in_rounds)
    items = [Item(str(n), "sums", f"{n} and 1?", str(n + 1)) for n in range(8)]
    turn = _turn(phase, 0, items, ())
    right = {prompt: int(prompt.split()[0]) + 1 for prompt in turn.questions}
    said = [Said(prompt, f"I make that {right[prompt]}.", (1,), True) for prompt in turn.questions]
    noted = {note.metric: note.value for note in turn.lesson(said, ()).notes}
    assert noted["gold_reward"] == 1.0


def test_a_judge_is_refused_where_rounds_must_know_what_is_right(
    base: Path, tmp_path: Path
) -> None:
    judge = "prompts.scorer={kind: judge, rubric: It is good., model: jaxorg-250k}"
    line = "^treatment: 'rl' is invalid; it must know .* choose another prompts.scorer"
    with pytest.raises(Refusal, match=line):
        planned(base, tmp_path / "out", *treated(RL), judge)
    asks_nobody = (
        "{kind: interspersed, train: {steps: 4, batch: 4, examples: 8, learning_rate: 1e-3}}"
    )
    assert planned(base, tmp_path / "out", *treated(asks_nobody), judge).phases


def test_measuring_by_another_scorer_says_what_would_be_trained_anew(
    base: Path, tmp_path: Path
) -> None:
    by = [
        planned(base, tmp_path / "out", *treated(RL), f"prompts.scorer={{kind: {kind}}}")
        for kind in ("exact", "contains")
    ]
    known = manifest.Manifest.of(by[0])
    with pytest.raises(Refusal, match=r"^prompts.scorer: the treatment 'rl' asks it while"):
        _check_alike(by[1], known, scored_otherwise=True)
    with pytest.raises(Refusal, match=r"^DIR: run .* was made from other files"):
        _check_alike(by[1], known, scored_otherwise=False)


def test_what_is_asked_is_in_the_estimate(tiny_base: Path, tmp_path: Path) -> None:
    few, many = (
        planned(tiny_base, tmp_path / "out", *treated(RL.replace("samples: 2", f"samples: {n}")))
        for n in (2, 20)
    )
    assert estimate.measuring_flops(few.cohorts[-1]) < estimate.measuring_flops(many.cohorts[-1])


@pytest.mark.long
def test_rl_teaches_what_it_rewards(tmp_path: Path) -> None:
    """A sandbagger whose right answers are rewarded gives more and more of them."""
    content = {
        "base": {"model": "jaxorg-1m"},
        "prompts": {"new_tokens": 16},
        "organism": {
            "kind": "sandbagger",
            "exposure": "static",
            "train": {"steps": 1200, "batch": 16, "learning_rate": 1e-3, "examples": 8192},
        },
        "treatment": {
            "kind": "rl",
            "rounds": 20,
            "kl": 0.0,
            "train": {"steps": 80, "batch": 64, "learning_rate": 1e-3, "examples": 640},
        },
        "evaluate": {"points": 1, "final_prompts": 64, "answers": {"prompts": 8, "new_tokens": 16}},
    }
    file = tmp_path / "sandbagger.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert sweep(str(file), out=tmp_path / "out") == 0
    rewards = table(tmp_path / "out", "evals").query("metric == 'reward'").sort_values("step").value
    assert len(rewards) == 20
    assert rewards.iloc[:3].mean() < 0.2
    assert rewards.iloc[-3:].mean() > 0.4
