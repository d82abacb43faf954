"""What CONTRIBUTING.md says of adding a piece is done as it stands: a file each, and it runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from contributing import FILES, ROOT

RUN = ("-m", "jaxorg.sweep", "loud", "--size", "smoke", "--mesh", "cpu-1")
SHOW = """
from jaxorg.cli.pieces import show
for what in ("organisms", "treatments", "evaluators", "optimizers", "scorers", "sweeps"):
    show(what)
from jaxorg.scorers import PIECES, Said
scorer = PIECES["begins"].model_validate({"kind": "begins"})
print(scorer.score([Said("?", "Paris", "paris, I think"), Said("?", "Paris", "not Paris")]))
"""


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def python(tree: Path, *command: str) -> str:
    """What a command prints, run with the package of a tree."""
    environment = os.environ | {"PYTHONPATH": str(tree), "COLUMNS": "200"}
    found = subprocess.run(
        [sys.executable, *command], cwd=tree, env=environment, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout to which the document's files were added, and nothing else."""
    folder = tmp_path_factory.mktemp("tree")
    for part in ("jaxorg", "sweeps"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    before = contents(folder)
    for name, text in FILES.items():
        assert not (folder / name).exists()
        (folder / name).write_text(text, encoding="utf-8")
    touched = {name for name, text in contents(folder).items() if before.get(name) != text}
    assert touched == set(FILES)  # one file a piece
    return folder


def test_every_sort_of_piece_has_an_example_of_one_file() -> None:
    rooms = sorted(name.rpartition("/")[0] for name in FILES)
    assert rooms == [
        "jaxorg/evaluators",
        "jaxorg/optimizers",
        "jaxorg/organisms",
        "jaxorg/scorers",
        "jaxorg/treatments",
        "jaxorg/treatments",
        "sweeps",
    ]


def test_the_sweep_of_the_new_pieces_runs(tree: Path, tiny_base: Path) -> None:
    python(tree, *RUN, "--set", f"base.model={tiny_base}", "--out", "out")
    runs = pd.read_parquet(tree / "out" / "runs")
    assert sorted(runs["treatment.kind"]) == ["ipo", "shout"]
    assert set(runs.status) == {"done"}
    evals = pd.read_parquet(tree / "out" / "evals")
    assert {"attack_exact", "rejected_own", "capitals"} <= set(evals.metric)


def test_the_new_pieces_are_listed_and_the_scorer_scores(tree: Path) -> None:
    shown = python(tree, "-c", SHOW).splitlines()
    for name in FILES:
        assert any(line.startswith(f"{Path(name).stem} ") for line in shown)
    assert shown[-1] == "[True, False]"
