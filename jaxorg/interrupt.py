"""SIGTERM and SIGINT: the first asks for a stop at the next seam, the second stops at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import TracebackType

PREEMPTED = 75  # sysexits' EX_TEMPFAIL: try again
INTERRUPTED = 130  # what a shell reports of Ctrl-C
_EXIT_CODES = {signal.SIGTERM: PREEMPTED, signal.SIGINT: INTERRUPTED}
_SHOW_CURSOR = "\x1b[?25h"


class Stopped(Exception):
    """The work was left at a seam, because a signal asked for it."""

    def __init__(self, exit_code: int):
        super().__init__(exit_code)
        self.exit_code = exit_code


class Interrupt:
    """Listens for both signals while it is entered.

    Python runs signal handlers between byte codes, so not during a call that trains for seconds.
    The number of a signal, though, is written to a pipe at once, and a thread reads it there.
    """

    def __init__(self) -> None:
        self._heard: int | None = None

    @property
    def exit_code(self) -> int | None:
        """The exit code that the signal asks for; None while there was none."""
        return _EXIT_CODES[signal.Signals(self._heard)] if self._heard else None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread is told of signals
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        self._handlers = {number: signal.signal(number, _ignore) for number in _EXIT_CODES}
        self._writers = writer, signal.set_wakeup_fd(writer)
        threading.Thread(target=self._listen, args=(reader,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        writer, before = self._writers
        signal.set_wakeup_fd(before)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(writer)  # ends the thread

    def _listen(self, reader: int) -> None:
        while byte := os.read(reader, 1):
            if byte[0] not in _EXIT_CODES:
                continue
            if self._heard:
                _leave(_EXIT_CODES[signal.Signals(byte[0])])
            self._heard = byte[0]
            print("\nstopping at the next seam; once more stops at once", file=sys.stderr)
        os.close(reader)


def _ignore(number: int, frame: object) -> None:
    """Python writes to the pipe only for signals that it handles."""


def _leave(code: int) -> None:
    """End this process in the middle of whatever it does; what is on disk can be gone on from."""
    if sys.stdout.isatty():
        print(_SHOW_CURSOR, end="", flush=True)  # a progress bar hides it
    os._exit(code)
