"""Finds pieces: in a package that keeps one small file a piece, and in other installed packages.

Those offer a piece by an entry point in the group that is called as the package here, such as
`jaxorg.treatments`; its name is what sweep files call the piece. A piece that cannot be used, or
whose name two packages have, is in nobody's way: it is refused where it is asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, Generic, NamedTuple, TypeVar, cast, get_args

from pydantic import BaseModel

from jaxorg.suggest import choose

P = TypeVar("P")
M = TypeVar("M", bound=BaseModel)
LONGEST = 200  # characters of why something cannot be imported


class Origin(NamedTuple):
    """The distribution that a piece comes from, if that is another one than jaxorg's."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


class Offer(NamedTuple, Generic[P]):
    """What another distribution offers under a name."""

    origin: Origin
    place: str  # `module:name`
    piece: P | None  # None where it cannot be used
    trouble: str  # why, and what to do; "" where it can

    @property
    def module(self) -> str:
        """The module that it is in."""
        return self.place.partition(":")[0].strip()


class Pieces(Mapping[str, P]):
    """The pieces of one sort by their names: those of a package here, and then those that other
    packages offer. These are imported when they are first looked for, since their modules import
    the package here themselves."""

    def __init__(
        self, package: str, builtin: Mapping[str, P], misfit: Callable[[str, object], str]
    ) -> None:
        """`misfit` says of a name and what is offered under it why that is no such piece; "" if it
        is one."""
        self.package, self.builtin, self._misfit = package, builtin, misfit

    @cached_property
    def offers(self) -> Mapping[str, Offer[P]]:
        """What other packages offer, in order of names."""
        found: dict[str, Offer[P]] = {}
        entries = [
            (entry.name, _origin(entry), entry) for entry in entry_points(group=self.package)
        ]
        for name, origin, entry in sorted(entries, key=lambda each: each[:2]):
            if name in found or name in self.builtin:
                first = found[name].origin if name in found else "jaxorg"
                remedy = f"both {first} and {origin} offer it; uninstall the latter"
                found[name] = Offer(origin, entry.value, None, remedy)
            else:
                found[name] = self._offer(entry, origin)
        return found

    def trouble(self, name: str) -> str:
        """Why what goes by a name cannot be used, and what to do; "" if that is not known."""
        return self.offers[name].trouble if name in self.offers else ""

    def remedy(self, name: object, among: Iterable[str] | None = None) -> str:
        """What to do about a name that is invalid; valid ones are `among` these."""
        trouble = self.trouble(name) if isinstance(name, str) else ""
        return trouble or choose(name, self.usable if among is None else among)

    def origin(self, name: str) -> Origin | None:
        """Where a piece comes from; None of one of jaxorg's own."""
        return None if name in self.builtin else self.offers[name].origin

    @property
    def usable(self) -> Mapping[str, P]:
        """Those whose names say which piece is meant."""
        return {name: piece for name, piece in self.items() if not self.trouble(name)}

    def __getitem__(self, name: str) -> P:
        if name in self.builtin:
            return self.builtin[name]
        piece = self.offers[name].piece
        if piece is None:
            raise KeyError(name)
        return piece

    def __iter__(self) -> Iterator[str]:
        yield from self.builtin
        yield from (n for n, offer in self.offers.items() if offer.piece is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _offer(self, entry: EntryPoint, origin: Origin) -> Offer[P]:
        try:
            piece = entry.load()
            problem = self._misfit(entry.name, piece)
        except (Exception, SystemExit) as error:  # whatever foreign code does when it is imported
            said = " ".join(f"{type(error).__name__}: {error}".split())
            piece, problem = None, f"cannot be imported ({said[:LONGEST]})"
        if problem:
            remedy = f"fix or uninstall {origin}, whose {entry.value} {problem}"
            return Offer(origin, entry.value, None, remedy)
        if isinstance(piece, type):
            _ORIGINS[piece] = origin
        return Offer(origin, entry.value, piece, "")


_ORIGINS: dict[type, Origin] = {}


def version_of(made: type[Any]) -> Any:
    """What names the version of a piece in a fingerprint: its VERSION, and of one that another
    distribution offers, that one's name and version, too."""
    origin = _ORIGINS.get(made)
    return [made.VERSION, *origin] if origin else made.VERSION


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


def by_kind(made: Iterable[type[M]]) -> Mapping[str, type[M]]:
    """Classes by the `kind` that each is for."""
    return {kind_of(one): one for one in made}


def named(package: str, base: type[M]) -> Mapping[str, type[M]]:
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


def pieces(package: str, base: type[Any], builtin: Mapping[str, type[M]]) -> Pieces[type[M]]:
    """The classes under `base`: a package's `builtin` ones by their names, and those that other
    packages offer. One that is for a `kind` goes by that."""

    def misfit(name: str, offered: object) -> str:
        if not (isinstance(offered, type) and issubclass(offered, base)):
            return f"is no class under {base.__name__}"
        made = cast(type[BaseModel], offered)
        if missing := sorted(getattr(made, "__abstractmethods__", ())):
            return f"does not define {', '.join(missing)}"
        if not hasattr(made, "VERSION"):
            return "has no VERSION"
        if "kind" in made.model_fields and (kind := kind_of(made)) != name:
            return f"is of kind {kind!r}, and the entry point is called {name!r}"
        made.model_rebuild()  # raises where a field's type is not defined
        return ""

    return Pieces(package, builtin, misfit)


def _origin(entry: EntryPoint) -> Origin:
    if entry.dist is None:
        return Origin("an unnamed distribution", "")
    return Origin(entry.dist.name, entry.dist.version)
