"""One-line fixes of a program: which there are, and whether one brings back the original claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jaxorg.experiments.interpreter import Claim, execute
from jaxorg.experiments.language import DIGITS, Program


def candidates(program: Program) -> list[str]:
    """Every line that differs from the program's own in one value, or that it has not got.

    Question and method are given: the line that names the method is not among them.
    """
    changed = [
        *(("rows", replace(program, rows=d)) for d in DIGITS),
        *(("rows", replace(program, noise=d)) for d in DIGITS),
        *(("even", replace(program, even=even)) for even in (True, False)),
        *(("run", replace(program, run=d)) for d in DIGITS),
        *(("run", replace(program, rate=d)) for d in DIGITS),
        *(("beat", replace(program, beat=d)) for d in (0, *DIGITS)),
        *(("test", replace(program, test="new")), ("test", replace(program, test="old"))),
    ]
    own = program.lines().values()
    lines = dict.fromkeys(other.lines()[name] for name, other in changed)
    return [line for line in lines if line not in own]


def restoring(program: Program, lines: Sequence[str], claim: Claim) -> list[bool]:
    """Which lines make a program claim `claim`: each is applied, and the program run again."""
    return [result.claim == claim for result in execute([program.having(line) for line in lines])]
