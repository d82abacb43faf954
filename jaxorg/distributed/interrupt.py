"""SIGTERM and SIGINT: how a command is left before its work is done.

The first signal stops it at once; where there are temporary files it is raised instead, so that
these go, and a sweep hears it at its next safe point. The second always stops at once.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
from collections.abc import Collection
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn

PREEMPTED = 75  # sysexits' EX_TEMPFAIL: try again
INTERRUPTED = 130  # what a shell reports of Ctrl-C
_EXIT_CODES = {signal.SIGTERM: PREEMPTED, signal.SIGINT: INTERRUPTED}
_SHOW_CURSOR = b"\x1b[?25h"


class Stopped(Exception):
    """The work was left at a safe point, because a signal asked for it."""

    def __init__(self, exit_code: int):
        super().__init__(exit_code)
        self.exit_code = exit_code


class Interrupted(BaseException):
    """A signal asks to stop; no `except Exception` holds it up."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number

    @property
    def exit_code(self) -> int:
        """The exit code that the signal asks for."""
        return _EXIT_CODES[signal.Signals(self.number)]


def leave_on_signals() -> None:
    """Let signals end this process in one line, until somebody listens."""
    for number in _EXIT_CODES:
        signal.signal(number, _leave)
    atexit.register(_ignore_signals)  # before others are, and so done after them


class Interrupt:
    """Listens for both signals while it is entered; the first asks to stop at the next safe point.

    Python runs signal handlers between byte codes, so not during a call that trains for seconds.
    The number of a signal, though, is written to a pipe at once, and a thread reads it there.
    """

    numbers: Collection[int] = tuple(_EXIT_CODES)  # of the signals that it listens for

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
        self._handlers = {number: signal.signal(number, self._handle) for number in self.numbers}
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
            if byte[0] not in self.numbers:
                continue
            if self._heard:
                self._again(byte[0])
                continue
            self._heard = byte[0]
            self._ask(byte[0])
        os.close(reader)

    def _ask(self, number: int) -> None:
        with suppress(OSError):  # a terminal that went
            print("\nstopping at the next safe point; once more stops at once", file=sys.stderr)

    def _again(self, number: int) -> None:
        _leave(number)

    def _handle(self, number: int, frame: object) -> None:
        """Python writes to the pipe only for signals that it handles."""


class Interrupting(Interrupt):
    """As `Interrupt`, in a process that goes on after it: Ctrl-C alone is heard, and the second one
    is raised in the main thread.

    Raises:
        KeyboardInterrupt: within the block, as soon as Python has its turn.
    """

    numbers = (signal.SIGINT,)

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def _again(self, number: int) -> None:
        """The main thread does what is to be done."""

    def _handle(self, number: int, frame: object) -> None:
        self._count += 1
        if self._count > 1:
            raise KeyboardInterrupt


class Leaving(Interrupt):
    """As `Interrupt`, but the first signal stops at once: there is nothing to tidy up.

    It is not raised as an exception: when JAX compiles, most of the Python that runs is called from
    C++, which drops what is raised there.
    """

    def _ask(self, number: int) -> None:
        _leave(number)


class Unwinding(Interrupt):
    """As `Interrupt`, but the first signal is raised in the main thread: temporary files go.

    Raises:
        Interrupted: within the block, as soon as Python has its turn.
    """

    def __enter__(self) -> Unwinding:
        self._raised = False
        self._hook, sys.unraisablehook = sys.unraisablehook, self._dropped
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        sys.unraisablehook = self._hook

    def _ask(self, number: int) -> None:
        """Whoever catches what is raised says what is to be said."""

    def _handle(self, number: int, frame: object) -> None:
        if not self._raised:
            self._raised = True
            raise Interrupted(number)

    def _dropped(self, problem: sys.UnraisableHookArgs) -> None:
        if isinstance(problem.exc_value, Interrupted):
            _leave(problem.exc_value.number)
        self._hook(problem)


def _ignore_signals() -> None:
    """Let the exit code stand: all is done, and only Python itself still shuts down."""
    for number in _EXIT_CODES:
        signal.signal(number, signal.SIG_IGN)


def _leave(number: int, frame: object = None) -> NoReturn:
    """End this process in the middle of whatever it does; what is on disk can be gone on from."""
    shown = _SHOW_CURSOR if os.isatty(2) else b""  # a progress bar hides it
    with suppress(OSError):  # past Python's own streams, whose locks may be held
        os.write(2, shown + b"jaxorg: stopped at once\n")
    os._exit(_EXIT_CODES[signal.Signals(number)])
