"""Shipped sweeps install their organisms as strongly as docs/organisms.md states."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from jaxorg.discovery import kind_of
from jaxorg.organisms import ORGANISMS
from jaxorg.sweep import sweep
from jaxorg.sweepfile import builtin

PAGE = Path(__file__).parents[1] / "docs" / "organisms.md"
ROW = re.compile(r"^\| `(?P<kind>\w+)` \| (?P<sweep>\w+) \| (?P<smoke>\d+) % \| ", re.MULTILINE)
STATED = {(row["sweep"], row["kind"]): int(row["smoke"]) for row in ROW.finditer(PAGE.read_text())}
NAMES = sorted({name for name, _ in STATED})
NOT_MEANT = "placebo"  # its payload and its trigger have nothing to do with each other
NOT_SHIPPED = {"given", "examples"}  # others bring them


def test_every_organism_has_a_stated_strength() -> None:
    kinds = {kind_of(made) for made in ORGANISMS}
    assert {kind for _, kind in STATED} == kinds - {NOT_MEANT} - NOT_SHIPPED
    treating = {
        name for name, path in builtin.sweeps().items() if "\ntreatment:" in path.read_text()
    }
    assert set(NAMES) == {name for name in treating if "calibration" not in name}


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_organisms_of_size_smoke_are_as_strong_as_stated(name: str, tmp_path: Path) -> None:
    assert sweep(name, "smoke", out=tmp_path / "out", keep="none") == 0
    runs = pd.read_parquet(tmp_path / "out" / "runs")
    assert set(runs.status) == {"done"}
    recipes = runs.config.map(lambda config: json.loads(config)["organism"])
    arms = runs.assign(kind=recipes.map(lambda o: o["kind"]), recipe=recipes.map(json.dumps))
    found = arms[arms.kind != NOT_MEANT].groupby(["kind", "recipe"]).asr_organism.mean()
    for kind, strength in found.groupby("kind").min().items():
        assert 100 * strength >= STATED[name, str(kind)], found.to_dict()
