"""Tables of what was noted while training data was made: in rounds, and of a teacher's answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxorg.page.grids import Column, Figure, Grid, Line, conditions, grid_of
from jaxorg.summary import PHASES, ROUND, TEACHER, Arm, Estimate, Metric

NOTES = {
    "reward": "reward",
    "gold_reward": "gold reward",
    "solved": "prompts with a right answer, %",
    "found": "wrong with an addition, %",
    "rejected_own": "own answers rejected, %",
}


TAUGHT = {
    "distilled": "kept",
    "distilled_differs": "other than plain",
    "teacher_capability": "right",
}
REWARDS = ("reward", "gold_reward")


class Taught(NamedTuple):
    """How many of the answers that an arm's teachers give a phase to train on are of a sort."""

    arm: str
    what: str
    share: Estimate


def rounds_of(arms: Sequence[Arm]) -> Grid:
    """A column a round; a row a note. Rewards are as they are, all else is in percent."""
    names = sorted(
        {
            name
            for arm in arms
            for noted in arm.notes.values()
            for name, condition in noted
            if condition.startswith(ROUND)
        }
    )
    rounds = conditions(arms, names, ROUND)
    lines = [
        Line(
            f"{phase}: {NOTES.get(name, name)}",
            [_figure(phase, (name, ROUND + number)) for number in rounds],
        )
        for phase in PHASES
        for name in names
    ]
    columns = [Column(f"round {number}") for number in rounds]
    return grid_of(arms, "Noted", columns, lines, Arm.note)


def taught_of(arms: Sequence[Arm]) -> list[Taught]:
    """What was noted of teachers' answers, arm by arm."""
    return [
        Taught(arm.label, f"{phase}: {told}", share)
        for arm in arms
        for phase in PHASES
        for name, told in TAUGHT.items()
        if (share := arm.note(phase, (name, TEACHER)))
    ]


def _figure(phase: str, metric: Metric) -> Figure:
    return Figure(phase, metric, 1, 3) if metric[0] in REWARDS else Figure(phase, metric)
