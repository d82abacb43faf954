"""One process at a time works in a folder of results; others can see which."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime

import filelock

from jaxorg.folder import Damaged, Folder, Json, read_json
from jaxorg.layout import OWNER, OwnerShape
from jaxorg.runtime import Refusal

NAME = ".lock"
PATIENCE = 1.0  # seconds; whoever only looks holds the lock for less


class Lock:
    """The lock of a folder. The system frees it when its owner dies, however that comes."""

    def __init__(self, folder: Folder):
        self._folder = folder
        self.path = folder.path
        self._note = folder.path / OWNER
        self._lock = filelock.FileLock(folder.path / NAME)

    @contextmanager
    def held(self) -> Iterator[str | None]:
        """Hold the folder; gives a line about an owner that died with it, if there was one.

        Raises:
            Refusal: another process holds it, or it cannot be written to.
        """
        try:
            self._folder.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=PATIENCE)
        except filelock.Timeout:
            raise Refusal(
                f"--out: {self._folder.path} is in use by {_told(self._owner())}; wait for it, or "
                f"choose another folder"
            ) from None
        except OSError as error:
            raise Refusal(
                f"--out: {self._folder.path} cannot be written to ({error.strerror}); choose "
                f"another"
            ) from error
        try:
            dead = self._owner() if self._note.exists() else None
            self._folder.tidy()
            self.note({})
            yield f"taken over from {_told(dead)}, which ended in the middle" if dead else None
        finally:
            with suppress(OSError):
                self._note.unlink(missing_ok=True)
            self._lock.release()

    def note(self, progress: Json) -> None:
        """Leave word of how far the owner is."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        about = {"process": os.getpid(), "host": socket.gethostname(), "time": now}
        self._folder.write_json(self._note, about | progress)

    def holder(self) -> Json | None:
        """What the process that holds the folder says of itself; None where none does."""
        if not self._note.exists():
            return None
        try:
            with self._lock.acquire(timeout=0):
                return None
        except filelock.Timeout:
            return self._owner()
        except OSError:  # a folder that may only be read from
            return None

    def _owner(self) -> Json:
        try:
            return read_json(self._note, OwnerShape)
        except Damaged:
            return {}


def _told(owner: Json) -> str:
    if not owner:
        return "an unknown process"
    return f"process {owner['process']} on {owner['host']} (last word at {owner['time']})"
