"""The page's charts, each in both themes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from jaxorg.page.plots import DARK, LIGHT, PER_PANEL, Theme, curves_svg, fronts_svg
from jaxorg.summary import Curve, Hull


@dataclass(frozen=True)
class Panel:
    """One chart with its title and the arms of its lines, in the order of their colours."""

    title: str
    arms: tuple[str, ...]
    light: str
    dark: str


def curve_panels(curves: Sequence[Curve]) -> list[Panel]:
    """One panel a treatment, or several where it has more arms than a panel has colours."""
    return _panels(curves, lambda curve: curve.group, lambda curve: curve.arm, curves_svg)


def hull_panels(hulls: Sequence[Hull]) -> list[Panel]:
    """One panel an organism, or several where it has more treatments than a panel has colours."""
    return _panels(hulls, lambda hull: hull.organism, lambda hull: hull.treatment, fronts_svg)


L = TypeVar("L")


def _panels(
    lines: Sequence[L],
    title: Callable[[L], str],
    name: Callable[[L], str],
    draw: Callable[[Sequence[L], Theme], str],
) -> list[Panel]:
    panels = []
    for shared, members in groupby(sorted(lines, key=title), title):
        found = list(members)
        parts = [found[i : i + PER_PANEL] for i in range(0, len(found), PER_PANEL)]
        for number, part in enumerate(parts, 1):
            whole = shared or "all arms"
            panels.append(
                Panel(
                    title=whole if len(parts) == 1 else f"{whole} ({number} of {len(parts)})",
                    arms=tuple(map(name, part)),
                    light=_data_url(draw(part, LIGHT)),
                    dark=_data_url(draw(part, DARK)),
                )
            )
    return panels


def _data_url(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
