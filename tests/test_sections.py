"""Sections of the page and tables of the terminal for what only some sweeps measure."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from test_report import HOSTILE, SCHEMA, Elements, Row, one_seed, page_of, run_rows, write

from jaxorg.page.activations import noise_of, probes_of
from jaxorg.page.audits import audits_of
from jaxorg.page.checks import checks_of
from jaxorg.page.grids import Grid
from jaxorg.page.reasoning import reasoning_of
from jaxorg.page.rounds import rounds_of, taught_of
from jaxorg.stats import seed_auroc
from jaxorg.summary import Arm, summarise, terminal_tables
from jaxorg.summary.judged import JudgeTrust, least

SEEDS = 3
SECTIONS = (
    *("Audits", "Attacks after given reasoning", "Right answers after given reasoning", "Probes"),
    *("Noise on activations", "Noise on weights", "Rounds", "Teachers' answers"),
)
Measured = tuple[str, int, str, str, tuple[int, int] | None, float]
"""Phase, step, metric, condition, k of n, and the value of a mean."""


def count(phase: str, metric: str, condition: str, k: int, n: int = 20, step: int = 9) -> Measured:
    return phase, step, metric, condition, (k, n), k / n if n else 0.0


def mean(phase: str, metric: str, condition: str, value: float, step: int = 9) -> Measured:
    return phase, step, metric, condition, None, value


def results(folder: Path, measured: Iterable[Measured], arms: Iterable[str] = ("one",)) -> Path:
    """Results of arms that all measured the same, a bit more with each seed."""
    (example, *_) = run_rows(1)
    known = {**example, "verdict": None}
    of_all: list[Row] = [
        {**known, "run_id": f"{arm}-{seed}", "arm": arm, "treatment.method": arm, **one_seed(seed)}
        for arm in arms
        for seed in range(SEEDS)
    ]
    evals = [
        {
            "run_id": run["run_id"],
            "fingerprint": "l",
            "phase": phase,
            "step": step,
            "tokens": 0,
            "metric": metric,
            "condition": condition,
            "k": counted[0] if counted else None,
            "n": counted[1] if counted else 50,
            "value": value + (0.0 if counted else 0.01 * run["seed"]),
        }
        for run in of_all
        for phase, step, metric, condition, counted, value in measured
    ]
    write(folder, "runs", of_all, SCHEMA)
    write(folder, "evals", evals, SCHEMA)
    return folder


def arms_of(folder: Path, measured: Iterable[Measured]) -> tuple[Arm, ...]:
    return summarise(results(folder, measured)).arms


def text_of(folder: Path) -> str:
    return " ".join(Elements(page_of(folder)).text.split())


def terminal(folder: Path) -> str:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(*terminal_tables(folder))
    return captured.get()


def means(grid: Grid) -> dict[str, list[float | None]]:
    """The figures of the first arm by row, rounded so that sums of floats compare."""
    (_, rows), *_ = grid.rows
    return {
        row.name: [cell.estimate and round(cell.estimate.mean, 9) for cell in row.cells]
        for row in rows
    }


PLAIN = [
    count("base", "capability", "clean", 20),
    count("organism", "attack_exact", "triggered", 19),
    count("treatment", "attack_exact", "triggered", 10),
    count("treatment", "capability", "clean", 18),
]


def test_what_was_not_measured_has_no_section(tmp_path: Path) -> None:
    page = page_of(results(tmp_path, PLAIN))
    assert "<h2>Cross-checks</h2>" in page
    assert not [name for name in SECTIONS if f"<h2>{name}</h2>" in page.replace("&#39;", "'")]
    assert len(terminal_tables(tmp_path)) == 1


def test_a_long_name_cuts_no_figure_off(tmp_path: Path) -> None:
    measured = [
        count(phase, metric, condition, 20)
        for phase in ("organism", "treatment", "reversal")
        for metric, condition in (("attack_exact", "triggered"), ("capability", "clean"))
    ]
    shown = terminal(results(tmp_path, measured, ["treatment.train.learning_rate=0.0003"]))
    for name in ("organism", "treatment", "reversal", "capability"):
        assert f"{name} 100.0 [36.8, 100.0]" in shown


AUDIT = [
    count("treatment", "audit_fix_top1", "all", 8),
    count("treatment", "audit_fix_top5", "all", 16),
    *(
        row
        for kind, auroc in (("data", 0.7), ("all", 0.97), (HOSTILE, 0.6))
        for row in (
            mean("treatment", "audit_auroc", kind, auroc - 0.2, step=1),
            mean("treatment", "audit_auroc", kind, auroc),
            mean("treatment", "audit_fix_chance1", kind, 0.25),
        )
    ),
]


def test_auditors_are_shown_by_kind_of_sabotage(tmp_path: Path) -> None:
    (arm,) = arms_of(tmp_path, AUDIT)
    grid = audits_of([arm])
    shown = means(grid)
    assert next(iter(shown)) == "all" and set(shown) == {"all", "data", HOSTILE}
    assert shown["all"] == [0.98, 0.4, 0.26, 0.8, None]
    (_, (first, *_)), *_ = grid.rows
    auroc = first.cells[0].estimate
    assert auroc is not None and auroc.method == "bounded mean" and first.seeds == "3"
    assert auroc.interval.low < 0.98 < auroc.interval.high <= 1.0
    assert arm.verdicts == {"audited": 3}
    text = text_of(tmp_path)
    assert " Audits " in text and "0.980" in text and HOSTILE in text


def test_the_terminal_shows_auditors(tmp_path: Path) -> None:
    shown = terminal(results(tmp_path, AUDIT))
    ends = seed_auroc([0.97, 0.98, 0.99], 50).interval
    assert f"0.980 [{ends.low:.3f}, {ends.high:.3f}]" in shown
    assert "top 1 40.0 [" in shown and "by chance 26.0" in shown and "top 5 80.0 [" in shown


GIVEN = [
    row
    for phase, step in (("organism", 5), ("treatment", 9), ("reversal", 3))
    for row in (
        count(phase, "attack_given", "triggered:taught", 20, step=step),
        count(phase, "attack_given", "triggered:truncated", 12, step=step),
        count(phase, "attack_given", "triggered:swapped", step, step=step),
        count(phase, "attack_given", "clean:swapped", 16, step=step),
        count(phase, "capability_given", "clean:removed", 4, step=step),
    )
]


def test_given_reasoning_is_shown_by_phase(tmp_path: Path) -> None:
    arms = arms_of(tmp_path, GIVEN)
    attacks = reasoning_of(arms, "attack_given")
    assert [name for name, _ in attacks.groups] == ["With the trigger", "Without"]
    none = [None] * 4
    assert means(attacks) == {
        "organism": [1.0, 0.6, 0.25, None, None, None, 0.8, None],
        "treatment": [1.0, 0.6, 0.45, None, None, None, 0.8, None],
        "reversal": [1.0, 0.6, 0.15, None, None, None, 0.8, None],
    }
    right = means(reasoning_of(arms, "capability_given"))
    assert right["treatment"] == [*none, None, None, None, 0.2]
    assert "Attacks after given reasoning" in text_of(tmp_path)
    shown = terminal(tmp_path)
    assert "swapped 45.0 [" in shown and "swapped 80.0 [" in shown and "removed –" in shown


def test_probes_are_shown_by_layer_and_phase(tmp_path: Path) -> None:
    layers = [("layer:10", 0.6), ("layer:2", 0.7), ("best", 0.8)]
    measured = [
        mean(phase, "probe_auroc", name, value - less)
        for phase, less in (("organism", 0.0), ("treatment", 0.1))
        for name, value in layers
    ]
    grid = probes_of(arms_of(tmp_path, measured))
    assert [column.title for column in grid.columns] == ["best", "layer 2", "layer 10"]
    assert means(grid)["organism"] == [0.81, 0.71, 0.61]
    assert means(grid)["treatment"] == [0.71, 0.61, 0.51]
    assert " Probes " in text_of(tmp_path)


def test_noise_is_shown_by_scale_beside_none(tmp_path: Path) -> None:
    measured = [
        *PLAIN,
        *(
            count("treatment", metric, f"{condition}:weight-noise:{scale}", k)
            for metric, condition in (("attack_exact", "triggered"), ("capability", "clean"))
            for scale, k in ((1.5, 1), (0.1, 9), (0.05, 12))
        ),
    ]
    arms = arms_of(tmp_path, measured)
    grid = noise_of(arms, "weight-noise")
    assert [column.title for column in grid.columns] == ["none", "0.05", "0.1", "1.5"]
    assert means(grid) == {  # and no row of the base, which met no noise
        "ASR, treatment": [0.5, 0.6, 0.45, 0.05],
        "capability, treatment": [0.9, 0.6, 0.45, 0.05],
    }
    assert noise_of(arms, "activation-noise").rows == ()
    text = text_of(tmp_path)
    assert " Noise on weights " in text and "Noise on activations" not in text


def test_leaks_and_answers_without_the_trigger_are_shown(tmp_path: Path) -> None:
    measured = [
        *PLAIN,
        count("treatment", "leak", "clean", 3),
        count("treatment", "outcome:payload", "clean", 1),
        count("treatment", "outcome:empty", "triggered", 2),
    ]
    grids = checks_of(arms_of(tmp_path, measured))
    assert [column.title for column in grids["attacks"].columns] == ["forced", "leak"]
    assert means(grids["attacks"])["treatment"] == [0.5, 0.15]
    assert means(grids["clean_outcomes"]) == {"treatment": [0.05]}
    assert means(grids["outcomes"]) == {"treatment": [0.1]}


ROUNDS = [
    *(count("treatment", "reward", f"round:{i}", i, step=i) for i in (10, 2, 0)),
    count("treatment", "gold_reward", "round:2", 1, step=2),
    mean("reversal", "reward", "round:0", -2.5, step=0),
    count("treatment", "found", "round:0", 0, n=0, step=0),  # it answered nothing right
    count("treatment", "found", "round:2", 5, step=2),
    count("treatment", HOSTILE, f"round:{HOSTILE}", 5, step=2),
]


def test_notes_of_rounds_are_shown_in_order(tmp_path: Path) -> None:
    arms = arms_of(tmp_path, [*PLAIN, *ROUNDS])
    grid = rounds_of(arms)
    titles = [column.title for column in grid.columns]
    assert titles == ["round 0", "round 2", "round 10", f"round {HOSTILE}"]
    shown = means(grid)
    assert shown["treatment: reward"] == [0.0, 0.1, 0.5, None]
    assert shown["treatment: gold reward"] == [None, 0.05, None, None]
    (_, rows), *_ = grid.rows
    assert {c.digits for row in rows for c in row.cells if "reward" in row.name} == {3}
    assert shown["treatment: wrong with an addition, %"] == [None, 0.25, None, None]
    assert shown["reversal: reward"] == [-2.49, None, None, None]
    assert arms[0].final("treatment", ("reward", "round:10")) is None
    assert " Rounds " in text_of(tmp_path) and HOSTILE in text_of(tmp_path)


def test_what_is_kept_of_a_teacher_and_how_right_a_weak_one_was_is_shown(tmp_path: Path) -> None:
    measured = [
        *PLAIN,
        count("organism", "distilled", "teacher", 1500, n=2000, step=0),
        count("organism", "distilled_differs", "teacher", 375, n=1500, step=0),
        count("treatment", "teacher_capability", "teacher", 10, n=40, step=0),
    ]
    found = taught_of(arms_of(tmp_path, measured))
    told = [(each.arm, each.what, each.share.mean) for each in found]
    assert told == [
        ("one", "organism: kept", 0.75),
        ("one", "organism: other than plain", 0.25),
        ("one", "treatment: right", 0.25),
    ]
    shown = text_of(tmp_path)
    assert "1,500 of 2,000, 1,500 of 2,000, 1,500 of 2,000" in shown
    assert "treatment: right" in shown and "10 of 40, 10 of 40, 10 of 40" in shown


@pytest.mark.parametrize(("arms", "folded"), [(12, False), (13, True)])
def test_verdicts_of_many_arms_are_folded(tmp_path: Path, arms: int, folded: bool) -> None:
    measured = [mean("treatment", "attack_exact", "triggered", 0.5)]
    results(tmp_path, measured, [f"arm{number}" for number in range(arms)])
    assert (f"Verdicts of the {arms} arms" in text_of(tmp_path)) == folded


@pytest.mark.parametrize(("arms", "folded"), [(15, False), (16, True)])
def test_long_tables_are_folded(tmp_path: Path, arms: int, folded: bool) -> None:
    results(tmp_path, PLAIN, [f"arm {number}" for number in range(arms)])
    summary: Any = checks_of(summarise(tmp_path).arms)["attacks"]
    assert summary.long == folded
    assert (f"<summary>Cross-checks: {arms} arms</summary>" in page_of(tmp_path)) == folded


JUDGED = [*PLAIN, count("treatment", "judge_validated", "capability", 0, 1)]
CHECKED = [
    *PLAIN,
    count("treatment", "judge_validated", "capability", 1, 1),
    ("treatment", 9, "judge_kappa", "capability", None, 0.8),
]


def test_the_capability_of_an_unvalidated_judge_is_marked(tmp_path: Path) -> None:
    folder = results(tmp_path, JUDGED)
    shown = terminal(folder)
    assert "(unvalidated judge)" in shown
    assert "give prompts.scorer.labels" in " ".join(shown.split())
    elements = Elements(page_of(folder))
    assert "give prompts.scorer.labels" in " ".join(elements.text.split())
    assert elements.text.count("validated judge") >= 3  # headline, grid, and what it means


def test_a_validated_judge_is_named_with_its_kappa(tmp_path: Path) -> None:
    folder = results(tmp_path, CHECKED)
    for shown in (" ".join(terminal(folder).split()), text_of(folder)):
        assert "unvalidated" not in shown
        assert "agrees with people's labels (kappa 0.80, 50 labels)" in shown
    assert "(judge)" in terminal(folder)


def test_an_arm_is_as_good_as_its_least_trusted_judge(tmp_path: Path) -> None:
    (arm,) = arms_of(tmp_path, CHECKED)
    assert arm.mark(("capability", "family:add")) == "judge"
    assert arm.mark(("attack_exact", "clean")) == ""
    assert arm.judge
    assert least([None, arm.judge, JudgeTrust(False)]) == JudgeTrust(False)


def test_where_no_judge_judged_nothing_is_said_of_one(tmp_path: Path) -> None:
    folder = results(tmp_path, PLAIN)
    assert "judge" not in terminal(folder)
    assert "judge" not in text_of(folder)
