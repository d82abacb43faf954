"""The base of every typed config: frozen, strict, no unknown keys, one canonical form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
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


class Role(NamedTuple):
    """What a field is to the program that phases are trained by. A field without any decides what
    the program is given, or how often it is called."""

    does: Literal["shapes", "swept", "entries swept", "measured"]
    name: str = ""  # in the program, if it has another one there than the field


# Compiled in: phases that differ in it are trained by different programs.
SHAPES = Role("shapes")
# An array: another value compiles nothing.
SWEPT = Role("swept")
# The same of each entry of a mapping, by its own name.
ENTRIES_SWEPT = Role("entries swept")
# How phases are measured, which is nothing to their training.
ONLY_MEASURED = Role("measured")


def role_of(field: FieldInfo) -> Role | None:
    """What a field was marked as: `Annotated[int, SHAPES]`."""
    return next((mark for mark in field.metadata if isinstance(mark, Role)), None)


def marked(model: type[BaseModel], does: str) -> Mapping[str, str]:
    """The fields of a class that have a role, by their names in the program."""
    found = ((field, role_of(about)) for field, about in model.model_fields.items())
    return {role.name or field: field for field, role in found if role and role.does == does}


def shaping(config: Config) -> dict[str, Any]:
    """What of a config shapes the program."""
    return {name: getattr(config, field) for name, field in marked(type(config), "shapes").items()}


def swept(config: Config) -> dict[str, float]:
    """What of a config enters the program as arrays."""
    return {name: getattr(config, field) for name, field in marked(type(config), "swept").items()}


def misfit(key: str, value: Any, remedy: str) -> ValidationError:
    """What a config's validator raises where `key`, among all that it sees, is at fault."""
    problem = PydanticCustomError("misfit", "{remedy}", {"remedy": remedy})
    details = InitErrorDetails(type=problem, loc=tuple(key.split(".")), input=value)
    return ValidationError.from_exception_data("misfit", [details])


def content_hash(content: Any) -> str:
    """16 hex digits that name JSON-able `content`, whatever the order of its keys."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()
