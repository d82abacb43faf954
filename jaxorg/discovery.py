"""Finds the pieces of a package that keeps one small file a piece: adding one is adding a file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel

T = TypeVar("T")


def modules(package: str) -> Mapping[str, ModuleType]:
    """The modules that lie in a package by their names, in order of these."""
    places = importlib.import_module(package).__path__
    names = sorted(found.name for found in pkgutil.iter_modules(places))
    return {name: importlib.import_module(f"{package}.{name}") for name in names}


def kinds(package: str, base: type[BaseModel]) -> tuple[type[Any], ...]:
    """The classes under `base` that a package's modules define for one `kind` each, in order of
    these kinds."""
    found: dict[str, type[BaseModel]] = {}
    for module in modules(package).values():
        for made in vars(module).values():
            if not (isinstance(made, type) and issubclass(made, base)):
                continue
            if kind := kind_of(made):
                found[kind] = made
    return tuple(found[kind] for kind in sorted(found))


def named(package: str, base: type[T]) -> Mapping[str, type[T]]:
    """The class under `base` that each of a package's modules defines, by the module's name."""
    return {
        name: made
        for name, module in modules(package).items()
        for made in vars(module).values()
        if isinstance(made, type) and issubclass(made, base) and hasattr(made, "VERSION")
        if made.__module__ == module.__name__
    }


def kind_of(made: type[BaseModel]) -> str:
    """The one `kind` that a class is for; "" of a base class, which has none of its own."""
    return next(iter(get_args(made.model_fields["kind"].annotation)), "")
