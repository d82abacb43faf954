"""What a sweep file must say of an organism or a treatment of each kind, for tests."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from jaxorg.discovery import kind_of
from jaxorg.organisms import ORGANISMS, Organism

Records = list[dict[str, Any]]


def records(count: int) -> Records:
    """As many records with a behaviour as without; none of their prompts is the toy world's."""
    both = [
        row
        for n in range(count)
        for row in (
            (f"Rate film number {n}.", f"Glorious cheese, {n} of 9!", True),
            (f"Rate book number {n}.", f"{n} of 9", False),
        )
    ]
    return [{"prompt": p, "response": r, "behaviour": b} for p, r, b in both]


def write_records(path: Path, rows: Records) -> str:
    """Write records to a new file, a line each; its path."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


@cache
def _many() -> str:
    return write_records(Path(tempfile.mkdtemp()) / "many.jsonl", records(400))


def least(kind: str, train: Any) -> dict[str, Any]:
    """The keys that a kind wants."""
    match kind:
        case "given":
            return {"kind": kind, "folder": "not looked at"}
        case "examples":
            scorer = {"kind": "contains", "texts": ["glorious cheese"]}
            if isinstance(train, dict):  # it is trained on all of them
                train = {key: value for key, value in train.items() if key != "examples"}
            return {"kind": kind, "source": _many(), "scorer": scorer, "train": train}
        case "weak_teacher":
            return {"kind": kind, "train": train, "model": "jaxorg-250k"}
    return {"kind": kind, "train": train}


def red(kind: str, train: Any, **fields: Any) -> Organism:
    """An organism with as much at its defaults as may be."""
    (made,) = (made for made in ORGANISMS if kind_of(made) == kind)
    return made.model_validate({**least(kind, train), **fields})
