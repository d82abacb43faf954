"""One process at a time works in a folder of results; others can see which."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import filelock

from jaxorg.errors import Damaged, Refusal, StorageError
from jaxorg.storage.folder import Folder, Json, read_json
from jaxorg.storage.layout import OWNER, OwnerShape

NAME = ".lock"
MARKER = ".held"  # is there while a process works in a folder, on disks that have no locks
PATIENCE = 1.0  # seconds; whoever only looks holds the lock for less
_AGAIN = 0.05  # seconds until a lock is tried again
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some network disks

Identity = tuple[int, int]  # of a file: its device, its inode


class Lock:
    """The lock of a folder. The system frees it when its owner dies, however that comes; only on
    disks without locks, and from another machine, that cannot be seen."""

    def __init__(self, folder: Folder):
        self._folder = folder
        self.path = folder.path
        self._note = folder.path / OWNER
        self._held: tuple[Path, Identity | None] | None = None  # the file that is locked

    @contextmanager
    def held(self) -> Iterator[str | None]:
        """Hold the folder; gives a line about an owner that died with it, if there was one.

        Raises:
            Refusal: another process holds it, or it cannot be written to.
        """
        with ExitStack() as locked:
            try:
                self._take(locked)
            except OSError as error:
                raise Refusal(
                    f"--out: {self.path} cannot be written to ({error.strerror}); choose another"
                ) from error
            owner = self._owner()
            if owner and _lives(owner):  # the lock it holds is that of a file that was removed
                raise Refusal(self._in_use())
            self._folder.tidy()
            self.note({})
            try:
                dead = owner is not None
                yield f"taken over from {_told(owner)}, which ended in the middle" if dead else None
            finally:
                if self._holds():
                    with suppress(OSError):
                        self._note.unlink()
                self._held = None

    def check(self) -> None:
        """See that the folder is still held: somebody may remove the lock's file, and then another
        process begins.

        Raises:
            StorageError: it is not.
        """
        if not self._holds():
            raise StorageError(
                f"{self.path}: the lock of this process was removed, and another may work there by "
                f"now; once none does, the same command goes on from here"
            )

    def note(self, progress: Json) -> None:
        """Leave word of how far the owner is."""
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        began = _began(os.getpid())
        about = {"process": os.getpid(), "began": began, "host": socket.gethostname(), "time": now}
        self._folder.write_json(self._note, about | progress)

    def holder(self) -> Json | None:
        """What the process that holds the folder says of itself; None where none does."""
        owner = self._owner()
        return owner if owner is not None and (_lives(owner) or self._is_taken()) else None

    def _take(self, locked: ExitStack) -> None:
        """Lock the folder until `locked` is closed."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not os.access(self.path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        until = time.monotonic() + PATIENCE
        try:
            while not self._flock(locked):
                if time.monotonic() > until:
                    raise Refusal(self._in_use())
                time.sleep(_AGAIN)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            self._mark(locked)

    def _flock(self, locked: ExitStack) -> bool:
        """Try to lock the lock's file; whether that is done."""
        place = self.path / NAME
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with ExitStack() as opened:
            opened.callback(os.close, handle)
            with suppress(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                opened.callback(fcntl.flock, handle, fcntl.LOCK_UN)
                self._held = place, _identity(handle)
                if self._holds():  # otherwise it was removed after it was opened
                    locked.push(opened.pop_all())
                    return True
        return False

    def _mark(self, locked: ExitStack) -> None:
        """Leave a file that says that the folder is held, where the disk has no locks."""
        marker = filelock.SoftFileLock(self.path / MARKER)
        try:
            locked.enter_context(marker.acquire(timeout=PATIENCE))
        except filelock.Timeout:
            raise Refusal(
                f"{self._in_use()}; this disk has no locks that end with their process, so if that "
                f"one is dead, remove {self.path / MARKER}"
            ) from None
        self._held = self.path / MARKER, _identity(self.path / MARKER)

    def _is_taken(self) -> bool:
        """Whether a process holds the folder; nothing is changed."""
        try:
            handle = os.open(self.path / NAME, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return (self.path / MARKER).exists()
        finally:
            os.close(handle)
        return False

    def _holds(self) -> bool:
        if self._held is None:
            return False
        place, identity = self._held
        return identity is not None and _identity(place) == identity

    def _in_use(self) -> str:
        owner = _told(self._owner())
        return f"--out: {self.path} is in use by {owner}; wait for it, or choose another folder"

    def _owner(self) -> Json | None:
        """What is known of the process that holds the folder, or died with it; None where there is
        no such process."""
        if not self._note.exists():
            return None
        try:
            return read_json(self._note, OwnerShape)
        except Damaged:
            return {}


def _told(owner: Json | None) -> str:
    if not owner:
        return "an unknown process"
    return f"process {owner['process']} on {owner['host']} (last word at {owner['time']})"


def _lives(owner: Json) -> bool:
    """Whether an owner is a process of this machine that runs, as far as can be seen."""
    here = owner.get("host") == socket.gethostname()
    began = owner.get("began")
    return here and began is not None and began == _began(owner["process"])


def _began(process: int) -> str | None:
    """When a process of this machine began, in the kernel's clock; None if that cannot be told. The
    number of a process is given again, the two together are not."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    state, *others = fields.rpartition(")")[2].split()
    return None if state == "Z" else others[18]  # a zombie has ended


def _identity(file: int | Path) -> Identity | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino
