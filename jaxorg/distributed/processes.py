"""Several processes that work on one sweep: how they find each other, and how they stay in step.

All run the same program. What depends on the disk, the clock, memory or a signal, the first process
decides and does, and the others hear of it: they meet in *rounds*, at points of the program that
have a name. With one process there are no rounds, and nothing here does anything.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from jaxorg.distributed import runtime
from jaxorg.errors import Damaged, Parted, Refusal, StorageError

T = TypeVar("T")

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
PATIENCE = 300.0  # seconds that a process which failed waits for the others to hear of it
_A_WHILE = 60.0  # seconds; those that did not fail ask again after it, for as long as all live
_FAILED = "failure"
_ALIKE = {kind.__name__: kind for kind in (Damaged, Refusal, StorageError)}


class Elsewhere(Exception):
    """What went wrong in the first process, for the others."""


class _Rounds:
    """One process's side of the rounds, by the key-value store of JAX's coordinator."""

    def __init__(self, client: Any, index: int, count: int):
        self.index, self.count = index, count
        self.known: BaseException | None = None  # the last error that all processes know of
        self._client, self._round, self._apart = client, 0, False

    def meet(self, what: str, value: Any, patience: float | None = None) -> list[Any]:
        """Wait until all processes are here; what each says, in their order. Values are JSON.

        Args:
            what: the point of the program, the same for all.
            value: what this process says.
            patience: seconds after which this process gives up and ends; None for never.

        Raises:
            Parted: a process came to another point, or failed; all are told.
        """
        place, before = f"jaxorg/{self._round}", f"jaxorg/{self._round - 1}"
        self._round += 1
        mine = json.dumps([what, value])
        if self.index:
            self._client.key_value_set(f"{place}/{self.index}", mine)
            said = json.loads(self._heard(f"{place}/all", what, patience))
        else:
            others = range(1, self.count)
            texts = [self._heard(f"{place}/{other}", what, patience) for other in others]
            said = [json.loads(text) for text in [mine, *texts]]
            self._client.key_value_set(f"{place}/all", json.dumps(said))
            self._client.key_value_delete(before)  # all have read it, since all are here
        if len({point for point, _ in said}) > 1:
            self.known = Parted(_difference(said))
            raise self.known
        return [word for _, word in said]

    def first(self, what: str, function: Callable[[], T]) -> T:
        """See the function of the module."""
        if self._apart:
            return function()
        if self.index:
            value, problem = self.meet(what, None)[0]
            if problem is None:
                told: T = value
                return told
            kind, line = problem
            self.known = _ALIKE[kind](line) if kind in _ALIKE else Elsewhere(f"{kind}: {line}")
            raise self.known
        try:
            with self.apart():
                value = function()
        except Exception as error:
            self.meet(what, [None, [type(error).__name__, str(error)]])
            self.known = error
            raise
        self.meet(what, [value, None])
        return value

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Around what this process does without the others."""
        before, self._apart = self._apart, True
        try:
            yield
        finally:
            self._apart = before

    def _heard(self, key: str, what: str, patience: float | None) -> str:
        # JAX ends this process when another is dead (docs/processes.md), so this does not last.
        while True:
            try:
                wait = int(1000 * (patience or _A_WHILE))
                return str(self._client.blocking_key_value_get(key, wait))
            except Exception as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
            if patience is not None:
                print(f"jaxorg: no word from other processes ({what}); ends", file=sys.stderr)
                os._exit(1)  # an orderly end would wait for them


_rounds: _Rounds | None = None


def wanted() -> bool:
    """Whether the environment says that this is one of several processes.

    Raises:
        Refusal: it says only part of what is needed.
    """
    given = [name for name in VARIABLES if os.environ.get(name)]
    if given and len(given) < len(VARIABLES):
        missing = ", ".join(name for name in VARIABLES if name not in given)
        raise Refusal(f"{given[0]}: set, but not {missing}; set all three, or none")
    return bool(given)


@contextmanager
def joined(detect: bool) -> Iterator[None]:
    """Be one of several processes, if the environment names them, or `detect` asks JAX to find
    them. Only the first one's standard output is seen. No back end may run before.

    Raises:
        Refusal: the environment is no use.
        Parted: something went wrong in one process alone; all end.
    """
    global _rounds
    if not wanted() and not detect:
        yield
        return
    _rounds = _join()
    try:
        yield
        meet("end")
    except BaseException as error:
        shared(error)
        raise
    finally:
        _rounds = None


def count() -> int:
    """How many processes there are."""
    return _rounds.count if _rounds else 1


def leads() -> bool:
    """Whether this is the first process, which decides, writes and speaks."""
    return _rounds is None or _rounds.index == 0


def first(what: str, function: Callable[[], T]) -> T:
    """Let the first process call `function`; what it returns, or what is wrong, in all of them.

    Args:
        what: the point of the program, the same for all.
        function: what it returns is JSON. Of this module it may ask for `first` and `in_turn`
            alone, which then call what they are given: the others are not there.
    """
    return _rounds.first(what, function) if _rounds else function()


def in_turn(what: str, function: Callable[[], T]) -> T:
    """Call `function`, as for `first`, in the first process and then, if nothing is wrong, in the
    others."""
    if _rounds is None:
        return function()
    if leads():
        own: list[T] = []
        first(what, lambda: own.append(function()))
        return own[0]
    first(what, lambda: None)
    with _rounds.apart():
        return function()


def any_of(what: str, value: T | None) -> T | None:
    """The first of all processes' values that is not None."""
    return next((one for one in meet(what, value) if one is not None), None)


def meet(what: str, value: Any = None) -> list[Any]:
    """Wait until all processes are here; what each says, in their order."""
    return _rounds.meet(what, value) if _rounds else [value]


def same(what: str, value: Any, problem: str) -> None:
    """See that all processes have the same value.

    Raises:
        Refusal: with `problem`, in all of them.
    """
    said = meet(what, value)
    if any(other != said[0] for other in said) and _rounds:
        _rounds.known = Refusal(problem)
        raise _rounds.known


def shared(error: BaseException) -> None:
    """See that all processes met an error, or were told of it; what one met alone ends all.

    Raises:
        Parted: it came to some of them only.
    """
    if _rounds is None or error is _rounds.known:
        return
    try:
        _rounds.meet(_FAILED, _line(error), PATIENCE)
    except Parted:
        if not isinstance(error, Refusal | StorageError):
            traceback.print_exception(error)
        raise
    _rounds.known = error


def _join() -> _Rounds | None:
    """Find the other processes."""
    if wanted():
        address, number, index = (os.environ[name] for name in VARIABLES)
        if not re.fullmatch(r"\S+:\d{1,5}", address):
            raise Refusal(f"{VARIABLES[0]}: {address!r} is not HOST:PORT")
        if not number.isdecimal() or not index.isdecimal() or int(index) >= int(number):
            raise Refusal(
                f"{VARIABLES[2]}: {index!r} of {VARIABLES[1]} {number!r}; processes are numbered "
                f"from 0 to one less than there are"
            )
        found = runtime.join(address, int(number), int(index))
    else:
        found = runtime.join()
    client, processes, own = found
    if own:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return _Rounds(client, own, processes) if processes > 1 else None


def _difference(said: list[Any]) -> str:
    """Why processes that came to different points cannot go on."""
    for number, (what, word) in enumerate(said):
        if what == _FAILED:
            return f"process {number} failed: {word}; all processes end"
    points = ", ".join(f"process {number} to {what!r}" for number, (what, _) in enumerate(said))
    return f"the processes are out of step: {points}; all end"


def _line(error: BaseException) -> str:
    line = " ".join(str(error).split())
    alike = isinstance(error, Refusal | StorageError)
    return line if alike else f"{type(error).__name__}: {line}"
