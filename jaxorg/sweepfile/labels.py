"""Kinds of phases, and how people read what a sweep varies: names of paths, runs and phases."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

Kind = Literal["base", "teacher", "organism", "treatment", "reversal"]
PHASE_KINDS: Sequence[Kind] = ("base", "organism", "treatment", "reversal")  # of every chain
PHASE_ORDER: Sequence[Kind] = ("base", "teacher", "organism", "treatment", "reversal")
BARE = re.compile(r'[^\s="×·]+( [^\s="×·]+)*')
"""A label that can be taken for nothing else where names of arms are put together."""


@dataclass(frozen=True)
class Names:
    """How people read the grid's paths."""

    short: Mapping[str, str]  # of each, the shortest ending that tells it apart
    labels: Mapping[str, str]  # path of a label for each of the others on its axis

    @classmethod
    def of(cls, grid: Sequence[Mapping[str, Any]]) -> Names:
        """The names of the paths on a grid's axes."""
        short = short_names([path for axis in grid for path in axis])
        labels = {
            path: name
            for axis in grid
            for name in axis
            for path in axis
            if name.endswith(".label") and path != name
        }
        return cls(short, labels)


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The shortest ending that tells each dotted path apart; `.kind` goes without saying."""
    short = {path: path.removesuffix(".kind").rpartition(".")[2] for path in paths}
    counts = Counter(short.values())
    return {path: name if counts[name] == 1 else path for path, name in short.items()}


def of_organism(path: str) -> bool:
    """Whether a dotted path sets something about the organism, which a control stands in for."""
    return path.partition(".")[0] == "organism"


def label(
    fields: Mapping[str, Any], control: str, names: Names, kinds: Sequence[Kind] = PHASE_KINDS
) -> str:
    """What a run sweeps, up to some kinds of phase. A control stands in for the organism. A label
    stands for all of its axis.

    Args:
        fields: the grid's values by path.
        control: the name of the control that the run is; "" for none.
        names: how people read the paths.
        kinds: the phases whose settings are told.
    """

    def shows(path: str) -> bool:
        kind = path.partition(".")[0]
        known = kind not in PHASE_KINDS or kind in kinds
        return known and not (control and of_organism(path))

    shown = {
        path: value
        for path, value in fields.items()
        if shows(path) and not (path in names.labels and shows(names.labels[path]))
    }
    return phrase(shown, names.short) or "all"


def phrase(fields: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """`SOAP × HHH × steps=100 batch=8`: values by path, in their order. A label speaks for itself;
    all else stands beside its name, by path in `names`."""

    def bare(path: str) -> bool:
        value = fields[path]
        return path.endswith(".label") and isinstance(value, str) and bool(BARE.fullmatch(value))

    parts = []
    for speaks, paths in groupby(fields, bare):
        if speaks:
            parts += [fields[path] for path in paths]
        else:
            parts.append(" ".join(f"{names[p]}={plain_value(fields[p])}" for p in paths))
    return " × ".join(parts)


def phase_label(fields: Mapping[str, Any], control: str, names: Names, kind: Kind) -> str:
    """What a run sweeps up to one of its phases, and which control it is.

    Args:
        fields: the grid's values by path.
        control: the name of the control that the run is; "" for none.
        names: how people read the paths.
        kind: of the phase.
    """
    shown = label(fields, control, names, PHASE_KINDS[: max(1, PHASE_ORDER.index(kind))])
    return f"{shown} ({control})" if control and kind != "base" else shown


def plain_value(value: Any) -> str:
    """A value as it stands in a label; text that could be taken for more than itself is quoted."""
    if isinstance(value, str) and re.fullmatch(r'[^\s="]+', value):
        return value
    return json.dumps(value, ensure_ascii=False)
