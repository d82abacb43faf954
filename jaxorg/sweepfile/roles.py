"""What the paths of a grid are to the programs that runs are trained by (`config.Role`)."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel

from jaxorg.config import ENTRIES_SWEPT, SWEPT, Role, role_of
from jaxorg.sweepfile.mistakes import models_in
from jaxorg.sweepfile.run_config import RunConfig


def described(paths: Iterable[str]) -> str:
    """Which of a grid's paths are swept and which are compiled in, in a line; "" if none is."""
    does = {path: role.does for path in paths if (role := role_at(path))}
    swept = ", ".join(path for path, found in does.items() if found == "swept")
    shapes = ", ".join(path for path, found in does.items() if found == "shapes")
    parts = [
        f"swept as arrays: {swept}" if swept else "",
        f"compiled in: {shapes}" if shapes else "",
    ]
    return "; ".join(filter(None, parts))


def role_at(path: str) -> Role | None:
    """The role of what a dotted path leads to, in whatever kind has such a key; None without."""
    models: list[type[BaseModel]] = [RunConfig]
    role: Role | None = None
    for name in path.split("."):
        if role == ENTRIES_SWEPT:
            return SWEPT
        fields = [model.model_fields[name] for model in models if name in model.model_fields]
        role = next(filter(None, map(role_of, fields)), None)
        models = [model for field in fields for model in models_in(field.annotation)]
    return role
