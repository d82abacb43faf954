"""Names of arms: labels that speak for themselves, and values beside their paths."""

from typing import Any

import pytest

from jaxorg.sweepfile.labels import Names, label, phase_label

GRID = [
    {"organism.label": ["SOAP"], "organism.train.optimizer": ["soap"]},
    {"treatment.label": ["own pirate"], "treatment": [{}]},
    {"treatment.train.learning_rate": [1e-3], "treatment.train.batch": [8]},
]
NAMES = Names.of(GRID)
FIELDS: dict[str, Any] = {
    "organism.label": "SOAP",
    "organism.train.optimizer": "soap",
    "treatment.label": "own pirate",
    "treatment": {},
    "treatment.train.learning_rate": 1e-3,
    "treatment.train.batch": 8,
}


def test_labels_read_as_they_are_and_other_axes_as_key_and_value() -> None:
    assert label(FIELDS, "", NAMES) == "SOAP × own pirate × learning_rate=0.001 batch=8"


def test_a_control_has_no_organism_to_name() -> None:
    assert label(FIELDS, "clean", NAMES) == "own pirate × learning_rate=0.001 batch=8"


def test_a_phase_is_named_by_what_made_it() -> None:
    assert phase_label(FIELDS, "", NAMES, "organism") == "SOAP"
    assert phase_label(FIELDS, "clean", NAMES, "organism") == "all (clean)"


@pytest.mark.parametrize(
    "name", ["batch=8", "a × b", "a · clean control", 'say "x"', " a", "a  b", "a\nb", "", 3, None]
)
def test_a_label_that_could_be_taken_for_more_is_quoted_beside_its_path(name: Any) -> None:
    shown = label({**FIELDS, "organism.label": name}, "", NAMES)
    assert shown.startswith("organism.label=") and shown.count(" × own pirate × ") == 1


def test_names_without_labels_are_as_they_were() -> None:
    grid = [{"treatment.kind": ["hhh"]}, {"organism.payload": ["A B"]}]
    fields = {"treatment.kind": "hhh", "organism.payload": "A B"}
    assert label(fields, "", Names.of(grid)) == 'treatment=hhh payload="A B"'
