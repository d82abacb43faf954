"""`--profile DIR`: traces of a few calls, bounded, with no say in what a sweep finds."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from jaxorg.engine.run import execute, profile
from jaxorg.engine.run.profile import MOST, Profile
from jaxorg.errors import Refusal
from sweeps import run, same_tables, start

SHORT = ("grid=[{organism.payload_repeats: [1]}]", "seeds=1", "reversal=null")


def test_a_profiled_sweep_leaves_traces_and_the_same_tables(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    execute.trainer_of.cache_clear()  # what other tests have compiled
    traces = tmp_path / "traces"
    profiled = run(tmp_path / "profiled", tiny_base, *SHORT, profile=traces)
    plain = run(tmp_path / "plain", tiny_base, *SHORT)
    assert same_tables(plain, profiled) == ""
    expected = {f"{work}-{n + 1}" for work, most in MOST.items() for n in range(most)}
    assert {place.name for place in traces.iterdir()} == expected
    assert "training 3, measurement 1" in " ".join(capsys.readouterr().out.split())
    for place in traces.iterdir():
        (found,) = place.rglob("*.trace.json.gz")  # for Perfetto
        assert list(found.parent.glob("*.xplane.pb"))  # for XProf
        assert "compile" not in gzip.decompress(found.read_bytes()).decode().lower()
    (first,) = (traces / "training-1").rglob("*.xplane.pb")
    assert b"jit_chunk" in first.read_bytes()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The traces that were started, which are not written."""
    places: list[Path] = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda place, **_: places.append(place))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: None)
    return places


def test_first_uses_which_compile_are_not_traced_and_no_more_than_a_few_others(
    started: list[Path], tmp_path: Path
) -> None:
    found, traced = Profile(tmp_path), []
    for program in "abacabab":
        before = len(started)
        with found.traced("training", program):
            traced.append(len(started) - before)
    assert traced == [0, 0, 1, 0, 1, 1, 0, 0]
    assert [place.name for place in started] == ["training-1", "training-2", "training-3"]


def test_where_a_trace_cannot_be_written_the_work_is_done_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(jax.profiler, "start_trace", full)
    found, done = Profile(tmp_path), 0
    for _ in range(4):
        with found.traced("training", "a"):
            done += 1
    assert done == 4
    assert len(caplog.records) == 1 and "No space left" in caplog.text
    assert "no trace was written" in found.told()


def test_an_error_of_the_work_ends_its_trace_and_goes_on(
    started: list[Path], tmp_path: Path
) -> None:
    found = Profile(tmp_path)
    with found.traced("training", "a"):
        pass
    with pytest.raises(ValueError, match="of the work"), found.traced("training", "a"):
        raise ValueError("of the work")
    assert len(started) == 1


def make_file(place: Path) -> None:
    place.write_text("x")


def make_full_folder(place: Path) -> None:
    place.mkdir()
    (place / "mine").touch()


@pytest.mark.parametrize(
    ("make", "told"), [(make_file, "is no folder"), (make_full_folder, "is not empty")]
)
def test_a_folder_that_is_not_empty_is_refused_before_anything_is_written(
    make: Callable[[Path], None], told: str, tiny_base: Path, tmp_path: Path
) -> None:
    make(tmp_path / "traces")
    with pytest.raises(Refusal, match=f"--profile: .*{told}"):
        start(tmp_path / "out", tiny_base, *SHORT, profile=tmp_path / "traces")
    assert not (tmp_path / "out").exists()


def test_a_new_or_empty_folder_is_taken(tmp_path: Path) -> None:
    profile.check_folder(tmp_path)
    profile.check_folder(tmp_path / "new")
