"""Folders that are made beside their place: what a killed process leaves goes, and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

from jaxorg.cli.staging import MARK, MARKED, staged

EXPORT = """
import sys, time
from pathlib import Path
from jaxorg.cli.staging import staged
with staged(Path(sys.argv[1])) as place:
    place.mkdir()
    (place / "half").write_text("half")
    print("there", flush=True)
    time.sleep(60)
"""


def started(path: Path) -> subprocess.Popen[str]:
    """A process that is in the middle of making a folder."""
    command = [sys.executable, "-c", EXPORT, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "there\n"
    return process


def make(path: Path) -> None:
    with staged(path) as place:
        place.mkdir()
        (place / "whole").touch()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["model", "other"])
def test_what_a_killed_process_left_is_removed_by_the_next(name: str, tmp_path: Path) -> None:
    with started(tmp_path / "model") as process:
        process.kill()
    assert len(names(tmp_path)) == 1
    make(tmp_path / name)
    assert names(tmp_path) == [name]
    assert names(tmp_path / name) == ["whole"]


def test_what_another_process_is_making_stays(tmp_path: Path) -> None:
    with started(tmp_path / "model") as process:
        before = names(tmp_path)
        make(tmp_path / "model")
        assert names(tmp_path) == sorted([*before, "model"])
        process.kill()


def test_folders_of_others_stay(tmp_path: Path) -> None:
    for name in (".model.0123abcd", ".model.mark", ".model.marks", "elsewhere"):
        (tmp_path / name / "tmp").mkdir(parents=True)
        (tmp_path / name / "tmp" / "thesis.tex").touch()
    (tmp_path / ".model.mark" / MARK).write_text("mine")
    (tmp_path / ".model.marks" / MARK).mkdir()
    (tmp_path / "elsewhere" / MARK).write_bytes(MARKED)  # not hidden
    (tmp_path / ".model.link").symlink_to("elsewhere")
    (tmp_path / ".model.file").touch()
    before = set(tmp_path.rglob("*"))
    make(tmp_path / "new")
    assert set(tmp_path.rglob("*")) == before | {tmp_path / "new", tmp_path / "new" / "whole"}
