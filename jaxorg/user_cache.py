"""The folder of this user in which jaxorg keeps what can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """`JAXORG_CACHE`, else the user's cache folder; None where this user has none.

    As the XDG Base Directory Specification has it, what is empty counts as not set, and a relative
    `XDG_CACHE_HOME` as invalid.
    """
    user = os.environ.get("XDG_CACHE_HOME", "")
    usual = f"{user}/jaxorg" if os.path.isabs(user) else "~/.cache/jaxorg"
    path = os.path.expanduser(os.environ.get("JAXORG_CACHE") or usual)
    return None if path.startswith("~") else Path(path)
