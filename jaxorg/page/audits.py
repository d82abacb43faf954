"""The table of auditors: how well they tell sabotaged experiments from honest ones, and mend."""

from __future__ import annotations

from collections.abc import Sequence

from jaxorg.page.grids import Column, Figure, Grid, Line, conditions, grid_of
from jaxorg.summary import Arm

FIRST, FIVE = "Fixed at the first try, %", "Fixed within five, %"
COLUMNS = (
    Column("AUROC"),
    *(Column("auditor", FIRST), Column("by chance", FIRST)),
    *(Column("auditor", FIVE), Column("by chance", FIVE)),
)
FIXES = ("audit_fix_top1", "audit_fix_chance1", "audit_fix_top5", "audit_fix_chance5")
ALL = "all"


def audits_of(arms: Sequence[Arm]) -> Grid:
    """A row a kind of sabotage, after one of all kinds."""
    kinds = sorted(conditions(arms, {"audit_auroc"}), key=lambda kind: kind != ALL)
    lines = [_line(phase, kind) for phase in ("treatment", "reversal") for kind in kinds]
    return grid_of(arms, "Sabotage", COLUMNS, lines)


def _line(phase: str, kind: str) -> Line:
    name = kind if phase == "treatment" else f"{kind}, {phase}"
    auroc = Figure(phase, ("audit_auroc", kind), scale=1, digits=3)
    return Line(name, (auroc, *(Figure(phase, (fix, kind)) for fix in FIXES)))
