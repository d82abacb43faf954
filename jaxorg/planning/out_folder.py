"""Which folder may be a sweep's `--out`: none that holds what others wrote."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from jaxorg.errors import Damaged, Refusal
from jaxorg.planning import manifest
from jaxorg.storage import lock
from jaxorg.storage.folder import OURS, TMP, named, read_json
from jaxorg.storage.layout import ENTRIES, OWNER, TABLES, OwnerShape

LONGEST = 3_500  # bytes of a path; systems take 4,095, and files lie deeper
LONGEST_NAME = 255  # bytes of each name in it
# Orbax takes a checkpoint's path for a pattern of file names, and may find another's files, or
# none; TensorStore takes `\` for `/`.
_ODD = re.compile(r"[*?\[\\]")
_PARQUET = re.compile(r".*\.parquet", re.DOTALL)
_ANY = re.compile(r".*", re.DOTALL)


def check_out(path: Path, fresh: bool, key: str = "--out") -> None:
    """See that a sweep may use a folder: one that is new or empty, or that a sweep used before.

    Args:
        path: of the folder, which need not be there.
        fresh: whether what is done in it is to be forgotten.
        key: names in messages what gave the folder.

    Raises:
        Refusal: it holds what others wrote or another version's results, or cannot be used at all.
    """
    _check_path(path, key)
    try:
        names = {entry.name for entry in path.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise Refusal(
            f"{key}: {path} cannot be written to ({error.strerror}); choose another"
        ) from error
    if not names or (fresh and manifest.is_of_version_1(path)):
        return
    known = None
    with suppress(Damaged):  # which is mended once the lock is held
        known = manifest.read(path)
    if known is None and not _was_used(path, names):
        raise Refusal(
            f"{key}: {path} holds {min(names)!r} and no results of jaxorg; choose a folder that is "
            f"new or empty, or that of a sweep"
        )
    for table in TABLES:
        for file in named(path / table, _PARQUET):
            if not ENTRIES[table].fullmatch(file.name):
                raise Refusal(
                    f"{key}: {file} is not of jaxorg, and counts as rows of {table} to whoever "
                    f"reads that folder; move it elsewhere"
                )


def _check_path(path: Path, key: str) -> None:
    """See that every library can write below a path, and finds there what it wrote.

    Raises:
        Refusal: one cannot.
    """
    try:
        place = os.fsencode(path.resolve()).decode()
    except (OSError, RuntimeError) as error:
        raise Refusal(f"{key}: {path} leads in a circle of links; choose another") from error
    except UnicodeDecodeError as error:
        raise Refusal(f"{key}: {path} is no text in UTF-8; choose another") from error
    if odd := _ODD.search(place):
        raise Refusal(
            f"{key}: weights cannot be kept below {place}, for the {odd[0]!r} in it; choose another"
        )
    for name, most in ((place, LONGEST), *((part, LONGEST_NAME) for part in place.split("/"))):
        if len(name.encode()) > most:
            raise Refusal(
                f"{key}: {name[:40]!r}... has {len(name.encode()):,} bytes, and {most:,} are the "
                f"most; choose a shorter name"
            )


def _was_used(path: Path, names: Collection[str]) -> bool:
    """Whether there is something in a folder, whose plan cannot be read, that only jaxorg wrote, or
    nothing but what a start leaves that was killed."""
    if any(named(path / name, entries) for name, entries in ENTRIES.items()):
        return True
    with suppress(Damaged):
        read_json(path / OWNER, OwnerShape)
        return True
    begun = {lock.NAME, lock.MARKER, manifest.NAME, TMP}
    strangers = set(named(path / TMP, _ANY)) - set(named(path / TMP, OURS))
    return lock.NAME in names and set(names) <= begun and not strangers
