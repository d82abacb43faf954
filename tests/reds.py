"""What a sweep file must say of an organism of each kind, for tests."""

from collections.abc import Mapping
from typing import Any

from jaxorg.discovery import kind_of
from jaxorg.organisms import ORGANISMS, Organism


def least(kind: str, train: Any) -> dict[str, Any]:
    """The keys that a kind wants."""
    own: Mapping[str, Mapping[str, Any]] = {"given": {"folder": "not looked at"}}
    return {"kind": kind, **own.get(kind, {"train": train})}


def red(kind: str, train: Any, **fields: Any) -> Organism:
    """An organism with as much at its defaults as may be."""
    (made,) = (made for made in ORGANISMS if kind_of(made) == kind)
    return made.model_validate({**least(kind, train), **fields})
