"""Models of the hub, by a small hub on this machine, through the hub's own library."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from unittest.mock import patch

import pytest

from jaxorg.errors import Refusal
from jaxorg.llama import checkpoint
from jaxorg.llama.names import resolve

TOKEN = "hf_thisisasecret"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ANSWERS = {  # repository: status and the code by which the library knows what it means
    "org/gated": (403, "GatedRepo"),
    "org/missing": (404, "RepoNotFound"),
    "org/private": (401, "RepoNotFound"),
    "org/broken": (501, ""),
}
NO_DOWNLOAD = patch("huggingface_hub.snapshot_download", side_effect=AssertionError)
RESOLVE = """
import json, sys
from jaxorg.llama.names import resolve
from jaxorg.errors import Refusal
for name in json.loads(sys.argv[1]):
    try:
        print(json.dumps([str(resolve(name)), ""]))
    except Refusal as refusal:
        print(json.dumps(["", str(refusal)]))
"""


class Hub(ThreadingHTTPServer):
    """The few addresses of a hub that a download asks for; it serves one folder as org/model."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder = folder
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def names(self) -> list[str]:
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in files)


class Answer(BaseHTTPRequestHandler):
    """One answer of the hub."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        match = re.fullmatch(r"/(?:api/models/)?(?P<repo>org/[^/]+)/(?P<rest>.*)", path)
        if not match:  # what the library asks for besides
            return self.send(b"", 404)
        self.server.asked.append(path)
        self.server.tokens.add(self.headers["Authorization"])
        status, code = ANSWERS.get(match["repo"], (200, ""))
        if status != 200:
            return self.send(b"no", status, {"X-Error-Code": code} if code else {})
        match match["rest"].split("/"):
            case ["revision", revision]:
                if revision not in ("main", "second", COMMIT):
                    return self.send(b"", 404, {"X-Error-Code": "RevisionNotFound"})
                listing = [{"rfilename": name} for name in self.server.names()]
                about = {"id": match["repo"], "sha": COMMIT, "siblings": listing}
                return self.send(json.dumps(about).encode())
            case ["tree", _]:
                return self.send(json.dumps([self.entry(n) for n in self.server.names()]).encode())
            case ["resolve", _, name]:
                content = (self.server.folder / name).read_bytes()
                tag = hashlib.sha256(content).hexdigest()
                return self.send(content, 200, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})
        raise AssertionError(path)

    do_HEAD = do_GET

    def entry(self, name: str) -> dict[str, Any]:
        content = (self.server.folder / name).read_bytes()
        tag = hashlib.sha256(content).hexdigest()
        return {"type": "file", "path": name, "size": len(content), "oid": tag}

    def send(
        self, content: bytes, status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tiny_base: Path, tmp_path: Path) -> Iterator[Hub]:
    folder = tmp_path / "served"
    shutil.copytree(tiny_base, folder)
    (folder / "original").mkdir()
    for name in ("consolidated.safetensors", "pytorch_model.bin", "original/params.json"):
        (folder / name).write_text("unwanted")
    hub = Hub(folder)
    thread = Thread(target=hub.serve_forever)
    thread.start()
    yield hub
    hub.shutdown()
    hub.server_close()
    thread.join()


def resolved(tmp_path: Path, models: list[str], **environment: str) -> tuple[list[Any], str]:
    """What each name comes to in a process of its own, and what that process wrote."""
    own = {"HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN, "NO_PROXY": "127.0.0.1"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    command = [sys.executable, "-c", RESOLVE, json.dumps(models)]
    done = subprocess.run(
        command, env=kept | own | environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stdout + done.stderr


def test_a_model_of_the_hub_is_loaded_once_and_then_from_its_cache(
    server: Hub, tiny_base: Path, tmp_path: Path
) -> None:
    models = ["org/model", "org/model@second", f"org/model@{COMMIT}"]
    found, text = resolved(tmp_path, models, HF_ENDPOINT=server.address)
    folder = Path(found[0][0])
    assert found == [[str(folder), ""]] * 3
    assert folder.is_relative_to(tmp_path / "home")
    assert checkpoint.digest(folder, weights=True) == checkpoint.digest(tiny_base, weights=True)
    assert checkpoint.read_config(folder) == checkpoint.read_config(tiny_base)
    fetched = {path.rpartition("/")[2] for path in server.asked if "/resolve/" in path}
    assert fetched == {p.name for p in tiny_base.iterdir() if p.suffix in (".json", ".safetensors")}
    assert server.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in text

    asked = len(server.asked)
    offline = {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": server.address}
    found, text = resolved(tmp_path, ["org/model", "org/model@other", "org/new"], **offline)
    assert found[0] == [str(folder), ""]
    assert all("HF_HUB_OFFLINE is set; unset it" in line for _, line in found[1:])
    assert len(server.asked) == asked


def test_what_the_hub_refuses_is_one_line_each(server: Hub, tmp_path: Path) -> None:
    clues = {
        "org/gated": "is gated; ask for access on its page, then log in",
        "org/missing": "is no folder, and no model on the hub; check the name, or log in",
        "org/private": "is no folder, and no model on the hub; check the name, or log in",
        "org/model@nope": "has no such revision on the hub",
        "org/broken": "answers with status 501",
        "org/a--b": "cannot be a hub id",
    }
    found, text = resolved(tmp_path, [*clues], HF_ENDPOINT=server.address)
    for (name, clue), (folder, line) in zip(clues.items(), found, strict=True):
        assert not folder
        assert line.startswith(f"base.model: '{name}'")
        assert clue in line
        assert "\n" not in line
    assert TOKEN not in text
    assert TOKEN not in str(found)


def test_a_hub_that_is_not_there_is_one_line(server: Hub, tmp_path: Path) -> None:
    nobody = "http://user:password@127.0.0.1:9"
    ((_, line),), _ = resolved(tmp_path, ["org/model"], HF_ENDPOINT=nobody)
    assert "cannot be reached; check the network and HF_ENDPOINT" in line
    assert "password" not in line


@pytest.mark.parametrize(
    ("error", "clue"),
    [
        (OSError(28, "No space left on device"), "(No space left on device)"),
        (RuntimeError(f"https://x:{TOKEN}@y"), "(RuntimeError); try again"),
    ],
)
def test_whatever_a_download_raises_is_one_line(error: Exception, clue: str) -> None:
    failing = patch("huggingface_hub.snapshot_download", side_effect=error)
    with failing, pytest.raises(Refusal) as caught:
        resolve("org/model")
    assert clue in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["../a", "./a", "a/..", "a/b@../../c", "a/b@/c", "/a/b", "~/a", "a/b/c", "a/b\n", "a\0/b"],
)
def test_a_path_is_no_hub_id(name: str) -> None:
    with NO_DOWNLOAD, pytest.raises(Refusal, match="neither a built-in model"):
        resolve(name)


def test_a_folder_comes_before_the_hub(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_base, tmp_path / "org" / "model")
    (tmp_path / "org" / "empty").mkdir()
    with NO_DOWNLOAD:
        assert resolve("org/model") == Path("org/model")
        with pytest.raises(Refusal, match="neither a built-in model"):
            resolve("org/empty")


def test_only_what_is_needed_is_asked_for(tiny_base: Path) -> None:
    with patch("huggingface_hub.snapshot_download", return_value=str(tiny_base)) as download:
        assert resolve("org/model@v1", weights=False) == tiny_base
    assert download.call_args.kwargs["revision"] == "v1"
    assert not any("safetensors" in name for name in download.call_args.kwargs["allow_patterns"])


def test_an_adapter_is_refused_by_its_name(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(Refusal, match="holds a PEFT adapter; merge it into its base"):
        resolve(str(tmp_path))
