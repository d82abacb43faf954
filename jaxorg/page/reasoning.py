"""Tables of answers after reasoning that was put into the model's mouth."""

from __future__ import annotations

from collections.abc import Sequence

from jaxorg.page.grids import Column, Grid, after, grid_of
from jaxorg.summary import GIVEN_REASONING, PHASES, Arm

PUT = {"triggered": "With the trigger", "clean": "Without"}


def reasoning_of(arms: Sequence[Arm], metric: str) -> Grid:
    """A row a phase, a column a kind of reasoning, of prompts with the trigger and without."""
    columns = [Column(kind, group) for group in PUT.values() for kind in GIVEN_REASONING]
    metrics = [(metric, f"{condition}:{kind}") for condition in PUT for kind in GIVEN_REASONING]
    return grid_of(arms, "After", columns, after(PHASES, metrics))
