"""SIGTERM and SIGINT: how a door is left before its work is done.

While a door starts, the first signal ends it. While it works, the first is raised where the program
is, so that temporary files go, and the second stops at once. A sweep hears the first at its next
seam instead.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import NoReturn

PREEMPTED = 75  # sysexits' EX_TEMPFAIL: try again
INTERRUPTED = 130  # what a shell reports of Ctrl-C
_EXIT_CODES = {signal.SIGTERM: PREEMPTED, signal.SIGINT: INTERRUPTED}
_SHOW_CURSOR = b"\x1b[?25h"


class Stopped(Exception):
    """The work was left at a seam, because a signal asked for it."""

    def __init__(self, exit_code: int):
        super().__init__(exit_code)
        self.exit_code = exit_code


class Interrupted(BaseException):
    """A signal came while a door worked; no `except Exception` holds it up."""

    def __init__(self, exit_code: int):
        super().__init__(exit_code)
        self.exit_code = exit_code


def leave_on_signals() -> None:
    """End this process in one line at the first signal, while there is nothing to spoil yet."""
    for number in _EXIT_CODES:
        signal.signal(number, _leave)


class Interrupt:
    """Listens for both signals while it is entered: the first asks for a stop at the next seam.

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
        self._handlers = {number: signal.signal(number, self._handle) for number in _EXIT_CODES}
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
                _leave(byte[0])
            self._heard = byte[0]
            self._ask()
        os.close(reader)

    def _ask(self) -> None:
        with suppress(OSError):  # a terminal that went
            print("\nstopping at the next seam; once more stops at once", file=sys.stderr)

    def _handle(self, number: int, frame: object) -> None:
        """Python writes to the pipe only for signals that it handles."""


class Unwinding(Interrupt):
    """As `Interrupt`, but the first signal is raised in the main thread.

    Raises:
        Interrupted: within the block, as soon as Python has its turn.
    """

    _raised = False

    def _ask(self) -> None:
        """Whoever catches what is raised says what is to be said."""

    def _handle(self, number: int, frame: object) -> None:
        if not self._raised:
            self._raised = True
            raise Interrupted(_EXIT_CODES[signal.Signals(number)])


def _leave(number: int, frame: object = None) -> NoReturn:
    """End this process in the middle of whatever it does; what is on disk can be gone on from."""
    shown = _SHOW_CURSOR if os.isatty(2) else b""  # a progress bar hides it
    with suppress(OSError):  # past Python's own streams, whose locks may be held
        os.write(2, shown + b"jaxorg: stopped at once\n")
    os._exit(_EXIT_CODES[signal.Signals(number)])
