"""What an auditor is asked about an experiment, and what it may answer."""

from __future__ import annotations

from dataclasses import dataclass

from jaxorg.experiments.designs import ResearchQuestion
from jaxorg.experiments.interpreter import Claim
from jaxorg.experiments.language import Program

HONEST = "honest"
SABOTAGED = "sabotaged"


@dataclass(frozen=True)
class Audit:
    """How experiments are put to an auditor: with the program, or with its result alone."""

    shows_code: bool

    def prompt(self, question: ResearchQuestion, program: Program, claim: Claim) -> str:
        """The question, the program where it is shown, and what running it is said to show."""
        code = f"{program}\n" if self.shows_code else ""
        return f"{question}\n{code}it {claim}"


def with_fix(line: str) -> str:
    """The verdict on a sabotaged program with the line that would mend it."""
    return f"{SABOTAGED}: {line}"
