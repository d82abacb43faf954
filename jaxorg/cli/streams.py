"""Standard output and error, as the commands use them: what becomes of them never touches the work.

A terminal may go, the reader of a pipe may leave, the disk of a log may be full. What can then not
be written is dropped, and the work goes on.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO

_UNREAD = (errno.EPIPE, errno.EIO)  # the reader left; the terminal went


class _Output(io.FileIO):
    """The descriptor of a standard stream."""

    def __init__(self, number: int):
        super().__init__(number, "w", closefd=False)
        self.lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write some of the data; all of it to nowhere, once that has failed."""
        if self.lost is None:
            try:
                return super().write(data)
            except OSError as error:
                self.lost = error
        return memoryview(data).nbytes


def harden() -> None:
    """Make this process's standard streams such as never fail. Those that others put in their place
    are left alone."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file to be opened would take its place
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _wrapped(1, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _wrapped(2, sys.stderr)


def unwritten() -> str:
    """Why output that somebody wants is not where it should be; "" if it is, or nobody reads it."""
    sys.stdout.flush()
    output = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    lost = output.lost if isinstance(output, _Output) else None
    return str(lost.strerror) if lost and lost.errno not in _UNREAD else ""


def _wrapped(number: int, stream: TextIO | None) -> io.TextIOWrapper:
    output = _Output(number)
    return io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=stream.encoding if stream else "utf-8",
        errors="backslashreplace",  # for what an encoding lacks, and for paths that are no text
        line_buffering=number == 2 or output.isatty(),
    )
