"""A small sweep with crossed seeds: how much is trained, and what its tables and its page say."""

from collections import Counter
from pathlib import Path

import pytest

from jaxorg.cli.export import export_phase
from jaxorg.engine.run import group
from jaxorg.page import render
from jaxorg.summary import summarise, terminal_tables
from sweeps import run, table

TWO = ("grid=[{treatment.kind: [hhh, pirate]}]", "reversal=null")
CROSSED = "seeds={organism: 4, treatment: 4}"


@pytest.fixture(scope="module")
def trained() -> Counter[str]:
    """How many phases of each kind were trained."""
    return Counter()


@pytest.fixture(scope="module")
def crossed(
    trained: Counter[str], tmp_path_factory: pytest.TempPathFactory, tiny_base: Path
) -> Path:
    """Four organisms, four treatment seeds, two treatments."""
    begin = group.Group.__init__

    def noted(self: group.Group, around: object, scorer: object, phases: list[object]) -> None:
        trained.update(phase.kind for phase in phases)
        begin(self, around, scorer, phases)

    watch = pytest.MonkeyPatch()
    watch.setattr(group.Group, "__init__", noted)
    out = run(tmp_path_factory.mktemp("crossed") / "out", tiny_base, *TWO, CROSSED)
    watch.undo()
    return out


def test_the_red_team_works_once_for_all_treatment_seeds(
    crossed: Path, trained: Counter[str]
) -> None:
    assert trained == {"base": 1, "organism": 4, "treatment": 32}
    evals = table(crossed, "evals")
    assert evals.groupby("phase").fingerprint.nunique().to_dict() == dict(trained)
    assert evals.run_id.nunique() == 32


def test_the_runs_table_has_the_seeds_of_each_phase(crossed: Path) -> None:
    runs = table(crossed, "runs")
    for _, arm in runs.groupby("treatment.kind"):
        seeds = arm.sort_values("seed")[["seed", "base_seed", "organism_seed", "treatment_seed"]]
        assert seeds.to_numpy().tolist() == [[n, 0, n // 4, n % 4] for n in range(16)]


def test_runs_of_one_organism_have_its_rows_and_others_have_others(crossed: Path) -> None:
    losses, runs = table(crossed, "losses"), table(crossed, "runs").set_index("run_id")
    red = losses[losses.phase == "organism"].join(runs.organism_seed, on="run_id")
    assert (red.groupby(["organism_seed", "step"]).loss.nunique() == 1).all()
    assert red[red.step == 0].groupby("organism_seed").loss.first().nunique() == 4


def test_treatment_seeds_change_what_a_treatment_does(crossed: Path) -> None:
    losses, runs = table(crossed, "losses"), table(crossed, "runs").set_index("run_id")
    blue = losses[(losses.phase == "treatment") & (losses.step == 0)]
    assert blue.join(runs[["treatment.kind"]], on="run_id").loss.nunique() == 32


def test_growing_from_one_seed_trains_only_what_is_new(tiny_base: Path, tmp_path: Path) -> None:
    one = ("grid=[{treatment.kind: [hhh]}]", "reversal=null")
    out = run(tmp_path / "out", tiny_base, *one, "seeds=1")
    before = {path: path.stat().st_mtime_ns for path in (out / "phases").rglob("*.json")}
    (first,) = table(out, "runs").run_id
    run(out, tiny_base, *one, "seeds={organism: 2, treatment: 2}")
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    runs = table(out, "runs")
    assert len(runs) == 4 and runs[runs.run_id == first].seed.tolist() == [0]


def test_page_and_terminal_show_where_the_variance_comes_from(crossed: Path) -> None:
    summary = summarise(crossed)
    assert [arm.design for arm in summary.arms] == ["1×4×4"] * 2
    page = render(summary)
    assert "Where the variance comes from" in page and "Crossed seeds" in page
    assert "16 (1×4×4)" in page
    assert "shares of the variance over seeds" in [str(it.title) for it in terminal_tables(crossed)]


def test_a_page_of_seeds_that_are_not_crossed_says_so(tiny_base: Path, tmp_path: Path) -> None:
    out = run(tmp_path / "out", tiny_base, *TWO, "seeds=2", "treatment.train.steps=1")
    page = render(summarise(out))
    assert "Seeds were not crossed" in page and "Where the variance comes from" not in page


def test_a_run_of_crossed_seeds_is_exported(crossed: Path, tmp_path: Path) -> None:
    runs = table(crossed, "runs")
    (run_id,) = runs[(runs["treatment.kind"] == "hhh") & (runs.seed == 6)].run_id
    export_phase(crossed, run_id, tmp_path / "model", "treatment", "hf")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "seed: 6" in card and "organism: 1" in card and "treatment: 2" in card
