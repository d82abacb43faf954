"""Where people read what is printed: a terminal that may close, a log whose disk may be full."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TextIO


class Lasting(io.TextIOBase):
    """A stream that hands on what another one takes, and drops the rest: writing never fails."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding or "utf-8"

    def isatty(self) -> bool:
        with suppress(OSError, ValueError):
            return self._stream.isatty()
        return False

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):  # closed, full, or gone
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()
