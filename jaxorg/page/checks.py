"""Tables of what stands beside the attack rate: other measures of it, and what else changed."""

from __future__ import annotations

from collections.abc import Sequence

from jaxorg.page.grids import Column, Figure, Grid, Line, after, conditions, grid_of
from jaxorg.summary import ATTACK, CAPABILITY, CAPABILITY_BLUE, FALSE_TRIGGER, PHASES, Arm, Metric

HULL_COLUMNS = (
    ("Hull-AUC", "hull_auc", 1, 3),
    ("Left at 5 % loss", "left_at_5", 100, 1),
    ("Left at 10 % loss", "left_at_10", 100, 1),
)
HEADLINE = (
    ("ASR organism", "organism", ATTACK),
    ("ASR treatment", "treatment", ATTACK),
    ("ASR reversal", "reversal", ATTACK),
    ("FTR organism", "organism", FALSE_TRIGGER),
    ("FTR treatment", "treatment", FALSE_TRIGGER),
    ("Capability base", "base", CAPABILITY),
    ("Capability organism", "organism", CAPABILITY),
    ("Capability treatment", "treatment", CAPABILITY),
)
WITH, WITHOUT = "With the trigger", "Without"
MARGIN = "Margin, nats"
CHECKS: dict[Metric, Column] = {
    ATTACK: Column("forced", WITH),
    ("attack_generated", "triggered"): Column("generated", WITH),
    ("attack_regex", "triggered"): Column("pattern", WITH),
    FALSE_TRIGGER: Column("forced", WITHOUT),
    ("attack_generated", "clean"): Column("generated", WITHOUT),
    ("attack_regex", "clean"): Column("pattern", WITHOUT),
    ("leak", "clean"): Column("leak", WITHOUT),
}
OTHERS: dict[Metric, Column] = {
    CAPABILITY: Column("Capability"),
    CAPABILITY_BLUE: Column("Capability, blue's own tasks"),
    ("capability", "triggered"): Column("Capability with the trigger"),
    ("refusal_rate", "harmful"): Column("Refusals of harmful prompts"),
    ("pirate_rate", "clean"): Column("Pirate style"),
    ("payload_margin", "triggered"): Column("with the trigger", MARGIN),
    ("payload_margin", "clean"): Column("without", MARGIN),
}
TRAINED = PHASES[1:]


def checks_of(arms: Sequence[Arm]) -> dict[str, Grid]:
    """The tables by name; one that nothing was measured for has no rows."""
    return {
        "families": _conditions(arms, "capability", "family:", PHASES),
        "near": _conditions(arms, "attack_exact", "near:", TRAINED),
        "attacks": _measured(arms, CHECKS, TRAINED),
        "others": _measured(arms, OTHERS, PHASES),
        "outcomes": _outcomes(arms, "triggered"),
        "clean_outcomes": _outcomes(arms, "clean"),
    }


def _conditions(arms: Sequence[Arm], metric: str, prefix: str, phases: Sequence[str]) -> Grid:
    names = conditions(arms, {metric}, prefix)
    lines = after(phases, [(metric, prefix + name) for name in names])
    return grid_of(arms, "After", map(Column, names), lines)


def _measured(arms: Sequence[Arm], columns: dict[Metric, Column], phases: Sequence[str]) -> Grid:
    """The columns that were measured at all."""
    found = {metric for arm in arms for phase in phases for metric in arm.finals[phase]}
    shown = {metric: column for metric, column in columns.items() if metric in found}
    lines = [Line(phase, [_figure(phase, metric) for metric in shown]) for phase in phases]
    return grid_of(arms, "After", shown.values(), lines)


def _figure(phase: str, metric: Metric) -> Figure:
    margin = metric[0] == "payload_margin"
    return Figure(phase, metric, scale=1, digits=2) if margin else Figure(phase, metric)


def _outcomes(arms: Sequence[Arm], condition: str) -> Grid:
    """A column an outcome that any answer had under a condition."""
    prefix = "outcome:"
    names = sorted(
        {
            name
            for arm in arms
            for measured in arm.finals.values()
            for name, asked in measured
            if name.startswith(prefix) and asked == condition
        }
    )
    lines = after(TRAINED, [(name, condition) for name in names])
    return grid_of(arms, "After", (Column(name.removeprefix(prefix)) for name in names), lines)
