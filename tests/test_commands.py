"""How commands begin and end, whatever is around them: one line, the exit code, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import pytest

from jaxorg.__main__ import COMMANDS
from jaxorg.cli import common, pretrain
from jaxorg.distributed import runtime
from jaxorg.errors import Refusal, StorageError
from jaxorg.storage import lock
from jaxorg.storage.folder import Folder, placing
from jaxorg.storage.lock import Lock
from jaxorg.user_cache import cache_folder

SAYS = "from jaxorg.cli import common\ndef command(): {}\ncommon.run(command, [])"


def ended(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """What came of a command with a body of its own, in a new process."""
    command = [sys.executable, "-c", SAYS.format(code)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run(command, text=True, check=False, **streams)


# Standard streams


def test_a_reader_that_left_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    found = ended("print('x'); open('/dev/stderr', 'w').write('went on')", stdout=writer)
    os.close(writer)
    assert (found.returncode, found.stderr) == (0, "went on")


def test_output_that_finds_no_room_is_said_and_is_exit_code_1() -> None:
    with open("/dev/full", "w") as full:
        found = ended("print('x')", stdout=full)
        assert (found.returncode, len(found.stderr.splitlines())) == (1, 1)
        assert "not all output could be written (No space left on device)" in found.stderr
        assert ended("common.refuse('no')", stderr=full).returncode == 2


def test_closed_streams_are_not_given_to_files(tmp_path: Path) -> None:
    """What goes to standard error by number would land in a file of results."""
    place = tmp_path / "results"
    body = f"import os; file = open({str(place)!r}, 'w'); os.write(2, b'noise'); file.close()"
    command = [sys.executable, "-c", SAYS.format(body)]
    found = subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *command], check=False)
    assert found.returncode == 0
    assert place.read_text() == ""


def test_what_an_encoding_lacks_is_printed_as_its_code() -> None:
    found = ended("print('–'); common.say('–')", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (found.returncode, found.stdout) == (0, "\\u2013\n")
    assert found.stderr == "jaxorg: \\u2013\n"


# Surroundings


def test_a_folder_that_was_removed_is_no_place_to_work_in(tmp_path: Path) -> None:
    code = f"import os, sys; os.chdir({str(tmp_path)!r}); os.rmdir({str(tmp_path)!r}); "
    command = [sys.executable, "-c", code + SAYS.format("pass")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert found.stderr == (
        "jaxorg: the current folder cannot be used (No such file or directory); go to another one\n"
    )


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/jaxorg"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/jaxorg"),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/jaxorg"),
        ({"XDG_CACHE_HOME": "/cache", "JAXORG_CACHE": ""}, "/cache/jaxorg"),
        ({"JAXORG_CACHE": "~/mine"}, "/home/me/mine"),
        ({"JAXORG_CACHE": "~nobody-of-that-name/mine"}, None),
    ],
)
def test_the_cache_folder_is_where_the_specification_has_it(
    given: dict[str, str], place: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAXORG_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == (Path(place) if place else None)


def test_a_user_without_a_home_or_a_cache_compiles_anew_and_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    updated: list[str] = []
    monkeypatch.setattr(jax.config, "update", lambda name, _: updated.append(name))
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    for name in ("JAXORG_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    runtime.start()
    assert "(this user has no home folder); set JAXORG_CACHE" in capsys.readouterr().err
    monkeypatch.setenv("JAXORG_CACHE", "/proc/none")
    runtime.start()
    said = capsys.readouterr().err
    assert said.startswith("jaxorg: /proc/none/xla: compiled programs are not kept (")
    assert len(said.splitlines()) == 1
    assert "jax_compilation_cache_dir" not in updated


def test_without_git_no_commit_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert runtime.git_commit() == ""


def test_an_error_of_the_system_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        open("/dev/null/file").close()

    with pytest.raises(SystemExit) as caught:
        common.run(command, [])
    assert caught.value.code == 1
    said = "jaxorg: /dev/null/file: Not a directory; fix that and run the same command again\n"
    assert capsys.readouterr().err == said


# Signals


def heard(process: subprocess.Popen[str], number: int) -> bool:
    """Whether a process has a handler of its own for a signal."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    mask = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_every_command_ends_in_one_line_while_it_is_imported(number: int, code: int) -> None:
    commands = [[f"jaxorg.{name}"] for name in COMMANDS] + [["jaxorg", "sweep"]]
    with ExitStack() as all_of_them:
        processes = []
        for command in commands:
            arguments = [sys.executable, "-m", *command, "--help"]
            process = subprocess.Popen(
                arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            processes.append(all_of_them.enter_context(process))
        for process in processes:
            while not heard(process, signal.SIGTERM):
                time.sleep(0.001)
            process.send_signal(number)
        for process in processes:
            said = process.communicate(timeout=60)
            assert (process.returncode, *said) == (code, "", "jaxorg: stopped at once\n")


PYTHON = "time.sleep(60)"
DEAF = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"  # Python does not come back from it
# As when JAX compiles: what is raised in Python's code is dropped.
DROPPING = """class Dropping:
        def __del__(self):
            time.sleep(60)
    Dropping()"""
WRITES = "with placing(pathlib.Path(sys.argv[1])) as beside:\n        {}"
STOPPED, AT_ONCE = "stopped before it was done", "stopped at once"
COMMAND = """
import hashlib, pathlib, sys, time
from jaxorg.cli import common
from jaxorg.storage.folder import placing
def command():
    print(flush=True)
    {}
common.run(command, [])
"""


@pytest.mark.parametrize(
    ("work", "signals", "code", "said"),
    [
        (PYTHON, [signal.SIGTERM], 75, AT_ONCE),
        (DEAF, [signal.SIGINT], 130, AT_ONCE),
        (DROPPING, [signal.SIGINT], 130, AT_ONCE),
        (WRITES.format(PYTHON), [signal.SIGTERM], 75, STOPPED),
        (WRITES.format(PYTHON), [signal.SIGINT], 130, STOPPED),
        (WRITES.format(DEAF), [signal.SIGINT, signal.SIGTERM], 75, AT_ONCE),
        (WRITES.format(DROPPING.replace("\n", "\n    ")), [signal.SIGINT], 130, AT_ONCE),
    ],
    ids=["SIGTERM", "deaf", "dropping", "writes", "writes-C", "writes, deaf", "writes, dropping"],
)
def test_a_command_that_works_leaves_nothing_behind_or_stops_at_once(
    work: str, signals: Sequence[int], code: int, said: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", COMMAND.format(work), str(tmp_path)]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout
        process.stdout.readline()
        for number in signals:
            time.sleep(0.2)
            process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (code, f"jaxorg: {said}\n")
    if said == STOPPED:
        assert not list(tmp_path.iterdir())


# Files beside those of others


def test_files_are_placed_as_a_whole_and_follow_no_link(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    folder.mkdir()
    victim.write_text("mine")
    for name in ("report.html", "report.html.tmp"):
        (folder / name).symlink_to(victim)
    with placing(folder) as beside:
        (beside / "report.html").write_text("page")
        assert beside.parent == folder
        assert beside.stat().st_mode & 0o777 == 0o700
    assert victim.read_text() == "mine"
    assert (folder / "report.html").read_text() == "page"
    assert not (folder / "report.html").is_symlink()
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.html.tmp"]
    umask = os.umask(0)
    os.umask(umask)
    assert (folder / "report.html").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_file_that_cannot_be_placed_is_one_line_and_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("before")
    full = r"cannot be written to \(No space left on device\);"
    with pytest.raises(StorageError, match=full), placing(tmp_path) as beside:
        (beside / "report.html").write_text("after")
        Path("/dev/full").write_text("more")
    with pytest.raises(StorageError, match=r"cannot be written to \("), placing(Path("/proc")):
        pass
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_pretraining_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "model"
    folder.mkdir()
    victim.write_text("mine")
    (folder / "tokenizer.json").symlink_to(victim)
    monkeypatch.setattr(pretrain, "run_sweep", lambda *_: 1)
    assert pretrain.pretrain_base(folder, "smoke", None, ()) == 1
    assert victim.read_text() == "mine"
    assert not (folder / "tokenizer.json").is_symlink()


# The lock


def locked(path: Path) -> Lock:
    return Lock(Folder(path, print))


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A disk that knows no `flock`."""

    def flock(handle: int, how: int) -> None:
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    yield


def test_the_holder_stops_when_its_lock_is_removed(tmp_path: Path) -> None:
    one = locked(tmp_path)
    with one.held():
        one.check()
        (tmp_path / lock.NAME).unlink()
        with pytest.raises(StorageError, match="the lock of this process was removed"):
            one.check()
        (tmp_path / lock.NAME).touch()
        with pytest.raises(StorageError, match="the lock of this process was removed"):
            one.check()
        other = tmp_path / "owner.json"
        before = other.read_bytes()
    assert other.read_bytes() == before  # it may be of the next one by now


def test_no_other_enters_where_the_lock_of_a_process_that_runs_was_removed(tmp_path: Path) -> None:
    with locked(tmp_path).held():
        (tmp_path / lock.NAME).unlink()
        assert locked(tmp_path).holder()
        with pytest.raises(Refusal, match=f"in use by process {os.getpid()} on "):
            locked(tmp_path).held().__enter__()


def test_a_process_that_ended_or_another_of_its_number_holds_nothing(tmp_path: Path) -> None:
    folder = Folder(tmp_path, print)
    owner = {"process": os.getpid(), "host": lock.socket.gethostname(), "time": "now"}
    for began in ("1", None):
        folder.write_json(tmp_path / "owner.json", owner | {"began": began})
        assert locked(tmp_path).holder() is None
        with locked(tmp_path).held() as line:
            assert line and line.startswith(f"taken over from process {os.getpid()} on ")


def test_a_planted_link_is_not_locked(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / lock.NAME).symlink_to(tmp_path / "victim")
    with pytest.raises(Refusal, match="cannot be written to"):
        locked(tmp_path).held().__enter__()


def test_a_disk_without_locks_has_a_marker(tmp_path: Path, no_locks: None) -> None:
    one = locked(tmp_path)
    for _ in range(2):
        with one.held():
            one.check()
            assert locked(tmp_path).holder()
            with pytest.raises(
                Refusal, match=r"in use by .* if that one is dead, remove .*/\.held"
            ):
                locked(tmp_path).held().__enter__()
        assert locked(tmp_path).holder() is None
        assert not (tmp_path / lock.MARKER).exists()


def test_a_marker_of_another_host_is_named_and_can_be_removed(
    tmp_path: Path, no_locks: None
) -> None:
    (tmp_path / lock.MARKER).write_text("123\nelsewhere\n")
    about = {"process": 123, "began": None, "host": "elsewhere", "time": "then"}
    Folder(tmp_path, print).write_json(tmp_path / "owner.json", about)
    with pytest.raises(Refusal, match=r"in use by process 123 on elsewhere .* remove .*/\.held"):
        locked(tmp_path).held().__enter__()
    (tmp_path / lock.MARKER).unlink()
    with locked(tmp_path).held() as line:
        assert line and "taken over from process 123 on elsewhere" in line
