"""Shares of variance: against REML and textbook formulas, which sources a design tells apart, and
how often intervals hold the truth."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxorg.stats.intervals import Floats
from jaxorg.stats.variance import Run, Shares, Source, variance_shares

TABLE = [[120, 140, 101, 133], [60, 92, 43, 61], [180, 199, 171, 160], [98, 131, 90, 99]]
SOURCES = ("base", "organism", "treatment", "interaction", "prompts")


def _runs(k: npt.ArrayLike, n: int = 256) -> list[Run]:
    """A run for each count [bases, organisms, treatments]."""
    return [Run(*place, int(count), n) for place, count in np.ndenumerate(np.asarray(k))]


def _rates(design: Sequence[int], spread: Sequence[float], rng: np.random.Generator) -> Floats:
    """Rates about one half whose variances are `spread` squared."""
    b, o, t = design
    shapes = [(b, 1, 1), (b, o, 1), (1, 1, t), (b, o, t)]
    effects = (s * rng.normal(size=shape) for s, shape in zip(spread, shapes, strict=True))
    return np.clip(sum(effects, np.full((b, o, t), 0.5)), 0, 1)


def _named(found: Shares) -> list[tuple[Source, ...]]:
    return [each.sources for each in found.components]


def test_a_whole_table_gives_what_reml_gives() -> None:
    # MixedLM of statsmodels 0.15.0 with crossed variance components, computed once; its residual
    # is interaction and prompts together.
    organism, treatment, interaction, prompts = variance_shares(_runs([TABLE])).components
    assert organism.variance == pytest.approx(0.0336343, rel=1e-5)
    assert treatment.variance == pytest.approx(0.0038944, rel=1e-4)
    assert interaction.variance + prompts.variance == pytest.approx(0.0011067, rel=1e-4)


def test_several_bases_by_the_formulas_of_textbooks() -> None:
    k = np.random.default_rng(3).integers(20, 230, size=(3, 4, 5))
    y = k / 256
    base, organism, cell = y.mean(axis=(1, 2)), y.mean(axis=2), y.mean(axis=1)
    of_base = 20 * base.var(ddof=1)
    of_organism = 5 * organism.var(axis=1, ddof=1).mean()
    rest = y - organism[..., None] - cell[:, None] + base[:, None, None]
    within = np.square(rest).sum() / (3 * 3 * 4)
    both = cell - base[:, None] - cell.mean(axis=0) + y.mean()
    of_cell = 4 * np.square(both).sum() / (2 * 4)
    of_treatment = 12 * cell.mean(axis=0).var(ddof=1)
    noise = np.mean(y * (1 - y)) / 255
    expected = [
        (of_base - of_organism - of_cell + within) / 20,
        (of_organism - within) / 5,
        (of_treatment - of_cell) / 12,
        (of_cell - within) / 4 + within - noise,
        noise,
    ]
    found = [each.variance for each in variance_shares(_runs(k)).components]
    assert found == pytest.approx(np.maximum(expected, 0), abs=1e-12)


def test_known_variances_are_recovered_on_average() -> None:
    rng, spread = np.random.default_rng(5), (0.1, 0.08, 0.06, 0.05)
    design, n, found = (6, 3, 5), 64, []
    for _ in range(300):
        k = rng.binomial(n, _rates(design, spread, rng))
        found.append([each.variance for each in variance_shares(_runs(k, n)).components])
    true = np.square([*spread, 0])
    true[4] = (0.25 - true.sum()) / n
    error = np.std(found, axis=0) / 300**0.5
    assert np.all(np.abs(np.mean(found, axis=0) - true) < 4 * error)


@pytest.mark.parametrize("table", [TABLE, [[0] * 4, [0] * 4, [255] * 4, [256] * 4]])
def test_shares_sum_to_one_and_lie_in_their_intervals(table: list[list[int]]) -> None:
    found = variance_shares(_runs([table]))
    assert sum(each.share for each in found.components) == pytest.approx(1)
    assert sum(each.variance for each in found.components) == pytest.approx(found.total)
    for each in found.components:
        assert each.share_interval.low <= each.share <= each.share_interval.high
        assert each.variance_interval.low <= each.variance <= each.variance_interval.high


@given(st.permutations(range(16)), st.permutations(range(4)), st.permutations(range(4)))
def test_order_and_labels_do_not_matter(
    order: list[int], organisms: list[int], treatments: list[int]
) -> None:
    runs = _runs([TABLE])
    named = [Run(7, organisms[o], 10 + treatments[t], k, n) for _, o, t, k, n in runs]
    found = variance_shares([named[at] for at in order]).components
    for one, other in zip(found, variance_shares(runs).components, strict=True):
        assert one.sources == other.sources
        assert one.share == pytest.approx(other.share, abs=1e-9)
        assert one.share_interval.high == pytest.approx(other.share_interval.high, abs=1e-9)


def test_the_rate_of_not_attacking_has_the_same_shares() -> None:
    found, mirrored = (variance_shares(_runs(k)) for k in ([TABLE], 256 - np.array([TABLE])))
    for one, other in zip(found.components[:3], mirrored.components[:3], strict=True):
        assert one.variance == pytest.approx(other.variance)


@pytest.mark.parametrize(
    ("labels", "named", "noted"),
    [
        # base, organism, treatment of each run
        ([(b, o, t) for b in (0, 1) for o in (0, 1) for t in (0, 1, 2)], SOURCES[:4], ""),
        ([(0, o, t) for o in (0, 1) for t in (0, 1)], SOURCES[1:4], "base: one seed"),
        ([(0, o, 0) for o in range(3)], ["organism + interaction"], "treatment: one seed"),
        ([(0, 0, t) for t in range(3)], ["treatment + interaction"], "organism: one seed"),
        (
            [(s, s, s) for s in range(4)],
            ["base + organism + treatment + interaction"],
            "do not tell them apart",
        ),
        (
            [(0, o, 10 * o + t) for o in range(3) for t in range(2)],
            ["organism", "treatment + interaction"],
            "treatment + interaction: these runs do not tell them apart",
        ),
        (
            [(b, b, t) for b in range(3) for t in range(3)],
            ["base + organism", "treatment", "interaction"],
            "base + organism: these runs do not tell them apart",
        ),
        (
            [(b, o, 10 * b + t) for b in (0, 1) for o in (0, 1) for t in (0, 1)],
            SOURCES[:4],
            "",
        ),
    ],
)
def test_what_a_design_cannot_tell_apart_is_one_component(
    labels: list[tuple[int, int, int]], named: Sequence[str], noted: str
) -> None:
    k = np.random.default_rng(0).integers(20, 200, size=len(labels))
    found = variance_shares([Run(*it, int(hits), 256) for it, hits in zip(labels, k, strict=True)])
    assert [" + ".join(sources) for sources in _named(found)] == [*named, "prompts"]
    assert noted in "; ".join(found.notes)


@pytest.mark.parametrize("k", [0, 100, 256])
def test_runs_that_agree_have_no_shares_and_say_so(k: int) -> None:
    found = variance_shares(_runs(np.full((1, 4, 4), k)))
    assert found.components == () and found.total == 0
    assert f"all 16 runs are at {k / 256:.1%}: there is no variance to share out" in found.notes


def test_one_run_says_that_it_is_one() -> None:
    found = variance_shares([Run(0, 0, 0, 3, 9)])
    assert found.components == () and "one run, at 33.3%" in found.notes[-1]


def test_a_table_of_zeros_but_one_has_finite_shares() -> None:
    k = np.zeros((1, 4, 4), int)
    k[0, 0, 0] = 1
    for each in variance_shares(_runs(k)).components:
        ends = each.share, each.share_interval.low, each.share_interval.high
        assert np.all(np.isfinite(ends)) and 0 <= min(ends) <= max(ends) <= 1


def test_a_missing_run_changes_little() -> None:
    runs = _runs([TABLE])
    whole, parted = variance_shares(runs), variance_shares([*runs[:5], *runs[6:]])
    assert _named(whole) == _named(parted)
    for one, other in zip(whole.components, parted.components, strict=True):
        assert one.share == pytest.approx(other.share, abs=0.05)


def test_too_few_runs_left_say_so() -> None:
    found = variance_shares([Run(0, 0, 0, 3, 9), Run(0, 0, 1, 4, 9), Run(0, 1, 0, 5, 9)])
    assert found.components == ()
    assert found.notes[-1] == "too few runs to tell interaction from the rest"


def test_outcomes_tell_prompts_that_all_runs_fail_on_from_interaction() -> None:
    # Organism and treatment shift all rates alike; each run fails on the hardest prompts only.
    rates = 0.5 + np.array([-0.2, 0, 0.2])[:, None] + np.array([-0.1, 0, 0.1])
    rates += 0.05 * np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]])
    k = np.round(rates * 100).astype(int)
    nested = np.arange(100) < k.reshape(-1, 1)
    counted = variance_shares(_runs([k], 100)).components[2]
    known = variance_shares(_runs([k], 100), nested).components[2]
    assert counted.sources == known.sources == ("interaction",)
    assert known.variance > counted.variance
    assert counted.share_interval.low <= known.share_interval.low
    assert known.share_interval.high <= counted.share_interval.high
    assert known.variance_interval.high > known.variance_interval.low


def test_independent_outcomes_change_little() -> None:
    rng = np.random.default_rng(8)
    shown = rng.random((16, 2000)) < (np.ravel(TABLE) / 256)[:, None]
    runs = _runs(shown.sum(axis=1).reshape(1, 4, 4), 2000)
    for one, other in zip(
        variance_shares(runs).components, variance_shares(runs, shown).components, strict=True
    ):
        assert one.variance == pytest.approx(other.variance, abs=2e-4)


@pytest.mark.parametrize(
    ("runs", "match"),
    [
        ([], "at least one run"),
        ([Run(0, 0, 0, 3, 2)], "0 <= k <= n"),
        ([Run(0, 0, 0, -1, 2)], "0 <= k <= n"),
        ([Run(0, 0, 0, 1, 1)], "n >= 2"),
        ([Run(0, 0, 0, 1, 2), Run(0, 0, 0, 2, 2)], "same base, organism and treatment"),
    ],
)
def test_what_is_no_table_of_runs_is_refused(runs: list[Run], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        variance_shares(runs)


def test_outcomes_of_other_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="outcomes must be"):
        variance_shares([Run(0, 0, 0, 1, 2), Run(0, 1, 0, 2, 2)], [[1, 1], [1, 1]])


@pytest.mark.parametrize(
    ("design", "spread"),
    [
        ((1, 4, 4), (0, 0.1, 0.07, 0.05)),
        ((2, 2, 4), (0.1, 0.1, 0, 0.05)),
        ((1, 3, 3), (0, 0.1, 0, 0)),
    ],
)
def test_intervals_hold_the_true_shares_as_often_as_they_say(
    design: tuple[int, int, int], spread: tuple[float, ...]
) -> None:
    rng, n, tables = np.random.default_rng(1), 256, 300
    true = np.square([*spread, 0])
    true[4] = (0.25 - true.sum()) / n
    held = dict.fromkeys(SOURCES, 0)
    for _ in range(tables):
        for each in variance_shares(
            _runs(rng.binomial(n, _rates(design, spread, rng)), n)
        ).components:
            share = true[SOURCES.index(each.sources[0])] / true.sum()
            low, high = each.share_interval.low, each.share_interval.high
            held[each.sources[0]] += low - 1e-9 <= share <= high + 1e-9
    # Three standard errors of 300 tables below 95 %; prompts, whose variance is known but for its
    # mean over seeds, are left to docs/variance.md.
    least = 0.95 - 3 * (0.95 * 0.05 / tables) ** 0.5
    for source in SOURCES[design[0] == 1 : 4]:
        assert held[source] / tables >= least, source
