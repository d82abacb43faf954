"""The sweep files that come with the package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

_ASKS = re.compile(r"^# Asks:? (.*?[?.])(?=\s)", re.MULTILINE | re.DOTALL)


def sweeps() -> Mapping[str, Path]:
    """Sweep files by name: beside the package in a checkout, inside it when installed."""
    inside = Path(str(resources.files("jaxorg"))) / "sweeps"
    folder = inside if inside.is_dir() else inside.parent.parent / "sweeps"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def question(path: Path) -> str:
    """What a sweep asks, in the first sentence that the comment its file begins with has of it."""
    found = _ASKS.search(path.read_text(encoding="utf-8"))
    return " ".join(found[1].replace("\n#", " ").split()) if found else ""
