"""Whose files are touched, and which paths results can have."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxorg.cli import common
from jaxorg.errors import Refusal
from jaxorg.export import export
from jaxorg.planning.out_folder import check_out
from jaxorg.pretrain import pretrain
from jaxorg.report import report
from jaxorg.storage.folder import Folder
from jaxorg.storage.store import Store
from jaxorg.sweep import sweep
from sweeps import run, same_tables, start, write

ONE = ("grid=[{treatment.kind: [hhh]}]", "seeds=1", "reversal=null")  # 1 run, 3 phases


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A small sweep, done. Copy it to change it."""
    return run(tmp_path_factory.mktemp("reference") / "out", tiny_base, *ONE)


@pytest.fixture
def done(reference: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reference, tmp_path / "out"))


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"somebody's {name}")
    return folder


def contents(folder: Path) -> dict[str, bytes | None]:
    places = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in places}


SOMEBODYS = {
    "a file": ["thesis.tex"],
    "tmp": ["tmp/thesis.tex"],
    "a table": ["runs/other.parquet"],
    "phases": ["phases/notes.txt"],
    "answers": ["answers/alice.json", "rounds/1/ball.csv", "failed/bob.json"],
    "a lock": [".lock", "tmp/thesis.tex"],
    "a plan": ["plan.json"],
    "an owner": [".lock", "owner.json"],
    "hidden": [".git/config"],
    "datasets": ["datasets/swimming.txt", "partial/x.safetensors", "snapshots/1/x"],
}


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("names", SOMEBODYS.values(), ids=SOMEBODYS)
def test_a_folder_of_somebody_is_refused_and_left_alone(
    names: list[str], fresh: bool, tiny_base: Path, tmp_path: Path
) -> None:
    out = put(tmp_path / "out", *names)
    before = contents(out)
    with pytest.raises(Refusal, match=r"--out: .* holds '.*' and no results of jaxorg; choose"):
        start(out, tiny_base, *ONE, fresh=fresh)
    assert contents(out) == before


STRANGERS = ("notes.md", "tmp/thesis.tex", "runs/_README", "phases/notes.txt", "parts/mine.json")
STRANGERS += ("answers/alice.json", "failed/bob.json", "rounds/a/b", "snapshots/x", "datasets/y")


@pytest.mark.parametrize("fresh", [False, True])
def test_what_somebody_put_among_results_stays(
    fresh: bool, done: Path, reference: Path, tiny_base: Path
) -> None:
    put(done, *STRANGERS)
    run(done, tiny_base, *ONE, fresh=fresh, retry_failed=True)
    assert all((done / name).read_text() == f"somebody's {name}" for name in STRANGERS)
    assert same_tables(done, reference) == ""


def test_what_somebody_put_into_a_phase_is_not_removed_with_it(
    done: Path, reference: Path, tiny_base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phase = min((done / "phases").iterdir())
    put(phase, "plot.svg")
    run(done, tiny_base, *ONE, fresh=True)
    assert f"{phase / 'plot.svg'} is not what jaxorg wrote; moved" in capsys.readouterr().out
    assert (done / "damaged/phases" / phase.name / "plot.svg").exists()
    assert same_tables(done, reference) == ""


@pytest.mark.parametrize("fresh", [False, True])
def test_a_table_of_somebody_is_not_counted(fresh: bool, done: Path, tiny_base: Path) -> None:
    put(done, "runs/other.parquet")
    before = contents(done)
    with pytest.raises(Refusal, match=r"--out: .*runs/other.parquet is not of jaxorg, and counts"):
        start(done, tiny_base, *ONE, fresh=fresh)
    assert contents(done) == before


def test_a_first_start_that_was_killed_can_be_gone_on_from(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    check_out(tmp_path, fresh=False)
    put(tmp_path, "tmp/jaxorg-0/plan.json")
    check_out(tmp_path, fresh=False)
    owner = {"process": 1, "host": "here", "time": "now"}
    Folder(tmp_path, print).write_json(tmp_path / "owner.json", owner)
    check_out(tmp_path, fresh=False)


def test_fresh_refuses_another_version_before_it_removes_anything(
    done: Path, tiny_base: Path
) -> None:
    Folder(done, print).write_json(done / "plan.json", {"version": 99})
    before = contents(done)
    with pytest.raises(Refusal, match="layout version 99"):
        start(done, tiny_base, *ONE, fresh=True)
    assert contents(done) == before


def test_an_empty_name_is_no_folder(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(write(tmp_path / "out", tiny_base))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for command, argv in (
        (sweep, [file, "--out", ""]),
        (pretrain, [""]),
        (export, [str(tmp_path), "a", ""]),
    ):
        with pytest.raises(SystemExit) as ended:
            common.run(command, argv)
        assert ended.value.code == 2
    assert not list(here.iterdir())


@pytest.mark.parametrize("names", [["model.safetensors", "config.json"], ["README.md"]])
def test_pretrain_overwrites_nobodys_model(names: list[str], tmp_path: Path) -> None:
    folder = put(tmp_path / "model", *names)
    before = contents(folder)
    with pytest.raises(Refusal, match="FOLDER: .* and no model that pretrain made; choose"):
        pretrain(folder, size="smoke")
    assert contents(folder) == before


ODD = "run%42 #50% é|~:{b}'\"&$;\nx]"


def test_results_may_lie_in_a_folder_of_almost_any_name(
    reference: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ODD / "sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    os.symlink(ODD, "li[n]k")
    out = run(Path("li[n]k") / "sub" / ".." / "co:lon", tiny_base, *ONE)
    assert same_tables(tmp_path / ODD / "co:lon", reference) == ""
    assert len(list(out.glob("phases/*/weights"))) == 2
    report(out)
    assert (out / "report.html").exists()


@pytest.mark.parametrize("name", ["run%42", "a#b", "50%", "co:lon", "é", "sp ace", "a]b"])
def test_weights_are_read_from_the_folder_that_they_were_written_to(
    name: str, tmp_path: Path
) -> None:
    for number, folder in enumerate((name, "runB")):
        place = tmp_path / folder
        check_out(place, fresh=False)
        record = {"diverged": None, "chip_seconds": 1.0}
        weights = {"a": {"b": np.full((2, 3), number, np.float32)}}
        Store(Folder(place, print)).save("0" * 16, weights, record)
    read = Store(Folder(tmp_path / name, print)).reader("0" * 16)
    found = read(("a", "b"), ((0, 2), (0, 3)), np.dtype(np.float32))
    np.testing.assert_array_equal(found, 0)


IMPOSSIBLE = {
    "pattern": ("[x]", r"weights cannot be kept below .*, for the '\['"),
    "star": ("a*b/c", r"weights cannot be kept below .*, for the '\*'"),
    "question": ("what?", "weights cannot be kept below"),
    "backslash": ("a\\b", "weights cannot be kept below"),
    "bytes": ("\udc80", "is no text in UTF-8"),
    "256 characters": ("x" * 256, "has 256 bytes, and 255 are the most; choose a shorter name"),
    "256 bytes": ("é" * 128, "has 256 bytes, and 255 are the most"),
    "long": ("x" * 200 + "/y" * 1800, "and 3,500 are the most"),
    "file": ("file", "cannot be written to"),
    "below a file": ("file/x", "cannot be written to"),
    "circle": ("circle", "leads in a circle of links|cannot be written to"),
}


@pytest.mark.parametrize(("name", "line"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
@pytest.mark.parametrize("fresh", [False, True])
def test_a_path_that_will_not_do_is_refused_before_anything_is_written(
    name: str, line: str, fresh: bool, tiny_base: Path, tmp_path: Path
) -> None:
    file = write(tmp_path / "out", tiny_base)
    (tmp_path / "file").touch()
    os.symlink("circle", tmp_path / "circle")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Refusal, match=line):
        sweep(str(file), mesh="cpu-2", out=tmp_path / name, set_=list(ONE), fresh=fresh)
    with pytest.raises(Refusal, match=line):
        pretrain(tmp_path / name, size="smoke")
    assert sorted(tmp_path.iterdir()) == before
