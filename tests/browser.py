"""A real browser, and a server on this computer that writes down what is asked of it."""

import shutil
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason=f"none of {', '.join(NAMES)} is here")


class Visit(NamedTuple):
    """What became of a page: its elements as they are in the end, and the browser's messages."""

    page: str
    messages: str


def visit(path: Path, profile: Path) -> Visit:
    """Open a page, let it do what it will for two seconds of its own time, and look at it."""
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--enable-logging=stderr", f"--user-data-dir={profile}", "--virtual-time-budget=2000"),
        *("--dump-dom", path.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return Visit(done.stdout, done.stderr)


class Listener(NamedTuple):
    """A server's address, and the paths that were asked for so far."""

    url: str
    heard: list[str]


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A server that answers every request with nothing, and remembers it."""
    heard: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield Listener(f"http://127.0.0.1:{server.server_port}", heard)
        server.shutdown()
        thread.join()
