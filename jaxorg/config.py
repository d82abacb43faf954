"""The base of every typed config: frozen, strict, no unknown keys, one canonical form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


class Config(BaseModel):
    """A small immutable record that a sweep file may set."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=()
    )

    NEWER: ClassVar[tuple[str, ...]] = ()  # keys that came when there were results already

    def identity(self, exclude: Collection[str] = ()) -> dict[str, Any]:
        """What enters a lineage: all keys but `exclude`, and but newer ones at their defaults, so
        that results from before these came keep their names."""
        fields = type(self).model_fields
        unset = {key for key in self.NEWER if getattr(self, key) == fields[key].default}
        return self.model_dump(exclude={*exclude, *unset})


def misfit(key: str, value: Any, remedy: str) -> ValidationError:
    """What a config's validator raises where `key`, among all that it sees, is at fault."""
    problem = PydanticCustomError("misfit", "{remedy}", {"remedy": remedy})
    details = InitErrorDetails(type=problem, loc=tuple(key.split(".")), input=value)
    return ValidationError.from_exception_data("misfit", [details])


def fingerprint(content: Any) -> str:
    """16 hex digits that name JSON-able `content`, whatever the order of its keys."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()
