"""Replies of judges on disk, by what they were asked: nothing is paid for twice."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jaxorg.errors import Refusal, StorageError
from jaxorg.user_cache import cache_folder


def folder() -> Path:
    """Where replies are kept, in the cache folder of this user.

    Raises:
        Refusal: there is none.
    """
    if (cache := cache_folder()) is None:
        raise Refusal(
            "JAXORG_CACHE: not set, and this user has no home folder; set it to a folder in which "
            "a judge's replies can be kept"
        )
    return cache / "judge"


class Replies:
    """A folder of replies. Processes may share it: a file is there as a whole or not at all."""

    def __init__(self, place: Path, asked: Sequence[object]):
        """`asked` is what shapes every reply: the model and how it is sampled."""
        self._place = place
        self._asked = asked

    def get(self, question: str) -> str | None:
        """The reply to a question; None where there is none that can be read.

        Raises:
            StorageError: the disk does not let it be read.
        """
        try:
            content = json.loads(self._path(question).read_text("utf-8"))
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        except OSError as error:
            raise StorageError(f"{self._place}: {error.strerror}; set JAXORG_CACHE") from None
        reply = content.get("reply") if isinstance(content, dict) else None
        return reply if isinstance(reply, str) else None

    def put(self, question: str, reply: str) -> None:
        """Keep the reply to a question.

        Raises:
            StorageError: the disk does not take it.
        """
        path = self._path(question)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
                json.dump({"reply": reply}, file)
            os.replace(file.name, path)
        except OSError as error:
            raise StorageError(f"{self._place}: {error.strerror}; set JAXORG_CACHE") from None

    def _path(self, question: str) -> Path:
        content = json.dumps([*self._asked, question]).encode()
        name = hashlib.blake2b(content, digest_size=16).hexdigest()
        return self._place / name[:2] / f"{name}.json"
