"""What the results of a sweep say: tables of estimates, claims, hulls, and a game."""

from jaxorg.storage.results import ATTACK, CAPABILITY, CAPABILITY_BLUE, FALSE_TRIGGER
from jaxorg.summary.arms import (
    GIVEN_REASONING,
    ROUND,
    TEACHER,
    Arm,
)
from jaxorg.summary.claims import Claims, Outcome
from jaxorg.summary.curves import Curve
from jaxorg.summary.estimates import Estimate
from jaxorg.summary.game import Games, NoGame, RedBlue
from jaxorg.summary.hulls import Group, Hull
from jaxorg.summary.judged import sentences, trust_of
from jaxorg.summary.relearning import Relearning
from jaxorg.summary.summary import Summary, summarise
from jaxorg.summary.tables import (
    PHASES,
    Metric,
    read_table,
)
from jaxorg.summary.terminal import terminal_tables
from jaxorg.summary.verdicts import AUDITED, NOT_MEASURED, NOT_TREATED

__all__ = [
    "ATTACK",
    "AUDITED",
    "CAPABILITY",
    "CAPABILITY_BLUE",
    "FALSE_TRIGGER",
    "GIVEN_REASONING",
    "NOT_MEASURED",
    "NOT_TREATED",
    "PHASES",
    "ROUND",
    "TEACHER",
    "Arm",
    "Claims",
    "Curve",
    "Estimate",
    "Games",
    "Group",
    "Hull",
    "Metric",
    "NoGame",
    "Outcome",
    "RedBlue",
    "Relearning",
    "Summary",
    "read_table",
    "sentences",
    "summarise",
    "terminal_tables",
    "trust_of",
]
