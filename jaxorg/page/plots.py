"""Charts as SVG text. They hold numbers and axes only: every name stays in the page around them.

The palette is Okabe and Ito's (2008), darkened or lightened for the ground it stands on; a dash
pattern repeats what the colour says, for print and for eyes that do not tell the colours apart.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxorg.summary import Curve, Hull

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHES = ("", "6 2", "2 2", "8 2 2 2", "4 1.5 1 1.5 1 1.5")
"""SVG dash arrays of the lines of one panel, in units of the line's width."""


@dataclass(frozen=True)
class Theme:
    """The colours of a chart: its lines, its text and axes, its grid."""

    lines: tuple[str, ...]
    ink: str
    grid: str


LIGHT = Theme(("#0072b2", "#d55e00", "#008060", "#b5558f", "#8a6d00"), "#404854", "#e3e6ea")
DARK = Theme(("#56b4e9", "#ff8f4a", "#35c9a0", "#e59ac9", "#e8c14a"), "#b9c1cc", "#343b45")
PER_PANEL = len(DASHES)


def curves_svg(curves: Sequence[Curve], theme: Theme) -> str:
    """One panel: attack rate in percent against steps, on log(1 + step) so that 0 has a place.

    For each curve the mean over seeds, its 95 % band, and a thin line a seed. The same curves
    and theme give the same bytes. At most `PER_PANEL` curves.
    """

    def draw(axes: Axes) -> None:
        for curve, colour, dash in zip(curves, theme.lines, DASHES, strict=False):
            _draw_curve(axes, curve, colour, dash)
        _frame_steps(axes, max(curve.steps[-1] for curve in curves), theme)
        _frame(axes, theme, ("steps", "attack success, %"))

    return _svg(draw)


def fronts_svg(hulls: Sequence[Hull], theme: Theme) -> str:
    """One panel: what is left of the behaviour against what is left of the capability, in percent
    of what they were before.

    A faint dot a measured model, a line a seed along its hull, and the diagonal of a behaviour that
    goes only with the capability. The same hulls and theme give the same bytes. At most `PER_PANEL`
    hulls.
    """

    def draw(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color=theme.ink, linewidth=0.8, linestyle=(0, (1, 3)))
        for hull, colour, dash in zip(hulls, theme.lines, DASHES, strict=False):
            _draw_hull(axes, hull, colour, dash)
        ticks = range(0, 101, 25)
        axes.set(xlim=(-3, 103), ylim=(-3, 103), xticks=ticks, yticks=ticks)
        _frame(axes, theme, ("capability, % of before", "behaviour, % of before"))

    return _svg(draw)


def _svg(draw: Callable[[Axes], None]) -> str:
    import matplotlib  # of the optional extra `report`
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "jaxorg", "svg.fonttype": "path", "font.size": 9}):
        figure = Figure(figsize=(4.6, 3.0), layout="constrained")
        draw(figure.add_subplot())
        page = io.StringIO()
        figure.savefig(
            page, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    return page.getvalue()


def _draw_curve(axes: Axes, curve: Curve, colour: str, dash: str) -> None:
    for seed in curve.seeds:
        steps, rates = np.array(seed).T
        axes.plot(steps, 100 * rates, color=colour, linewidth=0.6, alpha=0.4)
    found = curve.estimates
    low = [100 * each.interval.low for each in found]
    high = [100 * each.interval.high for each in found]
    axes.fill_between(curve.steps, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(
        curve.steps,
        [100 * each.mean for each in found],
        color=colour,
        linewidth=1.8,
        linestyle=_line_style(dash),
        dash_capstyle="butt",
    )


def _draw_hull(axes: Axes, hull: Hull, colour: str, dash: str) -> None:
    for group in hull.groups:
        ability, behaviour = 100 * np.clip(np.array(group.points), 0, 1).T
        axes.scatter(ability, behaviour, s=5, color=colour, alpha=0.3, linewidths=0)
        way = np.clip(np.array([(0, 0), *group.front, (1, 1)]), 0, 1)
        axes.plot(*(100 * way.T), color=colour, linewidth=1.1, linestyle=_line_style(dash))


def _line_style(dash: str) -> Any:
    """matplotlib's name of a dash pattern."""
    return (0, tuple(float(part) for part in dash.split())) if dash else "solid"


def _frame_steps(axes: Axes, last: int, theme: Theme) -> None:
    axes.set_xscale("function", functions=(np.log1p, np.expm1))
    decades = [factor * 10**power for power in range(7) for factor in (1, 3)]
    ticks = [0, *(step for step in decades if step <= last)]
    axes.set_xticks(ticks, labels=[f"{step:,}" for step in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set(xlim=(0, max(last, 1)), ylim=(-3, 103), yticks=range(0, 101, 25))


def _frame(axes: Axes, theme: Theme, names: tuple[str, str]) -> None:
    axes.set_xlabel(names[0], color=theme.ink)
    axes.set_ylabel(names[1], color=theme.ink)
    axes.grid(color=theme.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme.ink, length=0)
    axes.spines[:].set_visible(False)
