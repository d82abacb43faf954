"""The base of every typed config: frozen, strict, no unknown keys, one canonical form."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


class Config(BaseModel):
    """A small immutable record that a sweep file may set."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )


def later(default: Any) -> Any:
    """A field that did not exist from the start: at its default it is left out of what a config is
    dumped as, and so changes no name that was made without it."""
    return Field(default=default, exclude_if=lambda value: value == default)


def misfit(key: str, value: Any, remedy: str) -> ValidationError:
    """What a config's validator raises where `key`, among all that it sees, is at fault."""
    problem = PydanticCustomError("misfit", "{remedy}", {"remedy": remedy})
    details = InitErrorDetails(type=problem, loc=tuple(key.split(".")), input=value)
    return ValidationError.from_exception_data("misfit", [details])


def content_hash(content: Any) -> str:
    """16 hex digits that name JSON-able `content`, whatever the order of its keys."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()
