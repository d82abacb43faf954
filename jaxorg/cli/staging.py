"""A folder that is made beside its place and then put there, and what a kill leaves of that.

While it is made it stands in a hidden folder with a mark, which the process that makes it holds
locked: the system frees it when the process dies, however that comes. A hidden folder of ours whose
mark is free is what a killed process left, and the next one removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from jaxorg.cli import common
from jaxorg.distributed.interrupt import Unwinding
from jaxorg.errors import Refusal
from jaxorg.storage.folder import Folder

MARK = ".jaxorg-export"
MARKED = b"made by jaxorg; the next export beside it removes it\n"


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """A place to make a folder in, which then becomes `path` as a whole.

    Raises:
        Refusal: nothing can be written there.
        StorageError: the disk is full.
    """
    with ExitStack() as ends:
        ends.enter_context(Unwinding())  # a signal leaves nothing behind
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(path.parent)
            work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            ends.callback(_remove, work)
            ends.callback(os.close, _marked(work))
        except OSError as error:
            raise Refusal(
                f"PATH: {path} cannot be made ({error.strerror}); choose another"
            ) from error
        yield ends.enter_context(Folder(work, common.say).publishing(path))
        if path.is_dir():
            path.rmdir()  # fails where something was put into it meanwhile


def _marked(work: Path) -> int:
    """Mark a folder as ours; the mark is locked before it has its name."""
    handle = os.open(work / "new", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(handle, MARKED)
    with suppress(OSError):  # a disk without locks, on which what a kill leaves stays
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (work / "new").rename(work / MARK)
    return handle


def _remove_leftovers(parent: Path) -> None:
    """Remove hidden folders of ours whose process has died."""
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                _remove_if_left(Path(entry))


def _remove_if_left(folder: Path) -> None:
    with suppress(OSError):  # it has no mark, or a process holds that
        handle = os.open(folder / MARK, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            own = os.fstat(handle).st_uid == os.geteuid() == folder.stat().st_uid
            if own and os.read(handle, 2 * len(MARKED)) == MARKED:
                _remove(folder)
        finally:
            os.close(handle)


def _remove(work: Path) -> None:
    """Remove a folder of ours, its mark last, so that it has that as long as it is there."""
    with suppress(OSError):
        for inner in work.iterdir():
            if inner.is_dir() and not inner.is_symlink():
                shutil.rmtree(inner)
            elif inner.name != MARK:
                inner.unlink()
        (work / MARK).unlink(missing_ok=True)
        work.rmdir()
