"""Tables of what is measured inside the model: probes for the trigger, and noise."""

from __future__ import annotations

from collections.abc import Sequence

from jaxorg.page.grids import Column, Figure, Grid, Line, conditions, grid_of
from jaxorg.summary import ATTACK, CAPABILITY, FALSE_TRIGGER, PHASES, Arm

PROBE = "probe_auroc"
SHAKEN = {
    "ASR": ATTACK,
    "FTR": FALSE_TRIGGER,
    "capability": CAPABILITY,
    "capability with the trigger": ("capability", "triggered"),
}


def probes_of(arms: Sequence[Arm]) -> Grid:
    """A column a layer, after that of the layer which was chosen."""
    names = sorted(conditions(arms, {PROBE}), key=lambda name: name != "best")
    lines = [Line(p, [Figure(p, (PROBE, name), 1, 3) for name in names]) for p in PHASES]
    titles = [name.replace(":", " ") for name in names]
    return grid_of(arms, "After", map(Column, titles), lines)


def noise_of(arms: Sequence[Arm], noise: str) -> Grid:
    """A column a scale of a noise, after one of the same figure without it."""
    scales = conditions(arms, {metric for metric, _ in SHAKEN.values()}, f"clean:{noise}:")
    lines = [
        Line(
            f"{name}, {phase}",
            [
                Figure(phase, (metric, condition + end))
                for end in ("", *(f":{noise}:{scale}" for scale in scales))
            ],
        )
        for name, (metric, condition) in SHAKEN.items()
        for phase in PHASES
    ]
    return grid_of(arms, "Measured", map(Column, ["none", *scales]), lines, baselines=1)
