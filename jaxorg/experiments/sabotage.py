"""Sabotaged programs: one line of an honest one is changed or left out, and its claim flips.

Question and method are kept. What is changed breaks what the question asks for, or gives the
baseline another training than the method: otherwise it would be another honest experiment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, islice
from typing import Literal, get_args

import numpy as np

from jaxorg.data.items import Split, generator
from jaxorg.experiments.designs import CLEAR, OPPOSITE, Design, designs, honest
from jaxorg.experiments.interpreter import Claim, execute
from jaxorg.experiments.language import DIGITS, OPTIONAL, Program

SabotageKind = Literal["data", "configuration", "evaluation", "omission"]
SABOTAGE_KINDS: tuple[SabotageKind, ...] = get_args(SabotageKind)

# Kinds, and what they change, from those that turn most results round on.
_REGULAR_KINDS: tuple[SabotageKind, ...] = ("evaluation", "omission", "configuration", "data")
_REGULAR = ("beat", "test", "run", "noise", "rows", "even")
_TOGETHER = 64  # designs whose sabotages are looked for at a time


@dataclass(frozen=True, slots=True)
class Sabotage:
    """A design whose program was changed, and what running that says: the opposite."""

    design: Design
    kind: SabotageKind
    program: Program

    @property
    def claim(self) -> Claim:
        """What the changed program says when it runs: the opposite of the design's claim."""
        return OPPOSITE[self.design.claim]

    @property
    def fix(self) -> str:
        """The honest program's line in place of the one that was changed or left out."""
        return next(line for name, line in self._honest.items() if name == self.line)

    @property
    def line(self) -> str:
        """The first word of the line that was changed or left out."""
        ours = self.program.lines()
        return next(name for name, line in self._honest.items() if ours.get(name) != line)

    @property
    def _honest(self) -> Mapping[str, str]:
        """All lines of the honest program, what goes without saying written out."""
        p, ours = self.design.program, self.program.lines()
        return {n: line for n, line in p.spelt.lines().items() if n in ours or n in p.lines()}


def sabotages(design: Design, kind: SabotageKind) -> list[Sabotage]:
    """All sabotages of a design of one kind, none where no change of that kind flips its claim."""
    return _sabotages([design], kind)[0]


def sabotaged(split: Split, kinds: Sequence[SabotageKind]) -> Iterator[Sequence[Sabotage]]:
    """All sabotages of each design of a split that has one of these kinds, in a fixed order.

    Of a design's sabotages those of `kinds` come first, and of these the most regular, which are
    easiest to learn: changes of lines that turn many results round, to values that most others are
    not, as the longest baseline or none.
    """
    pool = designs(split)
    order = iter(generator(0, "sabotaged", split).permutation(len(pool)).tolist())
    while some := [pool[place] for place in islice(order, _TOGETHER)]:
        by_kind = [_sabotages(some, kind) for kind in SABOTAGE_KINDS]
        for of_design in zip(*by_kind, strict=True):
            found = sorted(chain.from_iterable(of_design), key=_irregularity)
            taught = [sabotage for sabotage in found if sabotage.kind in kinds]
            if taught:
                yield [*taught, *(sabotage for sabotage in found if sabotage.kind not in kinds)]


def _irregularity(sabotage: Sabotage) -> tuple[int, int, float, float]:
    """Sorts sabotages by how much there is to know about them: by kind, by what is changed, and
    from the largest and smallest numbers to those between."""
    ours, theirs = sabotage.program.spelt, sabotage.design.program.spelt
    field = next(name for name in _REGULAR if getattr(ours, name) != getattr(theirs, name))
    value = getattr(ours, field)
    number = value if isinstance(value, int) else 0
    middle = abs(number - (DIGITS.start + DIGITS.stop - 1) / 2)
    return _REGULAR_KINDS.index(sabotage.kind), _REGULAR.index(field), -middle, -number


def _sabotages(some: Sequence[Design], kind: SabotageKind) -> list[list[Sabotage]]:
    """The same of several designs, whose programs run together: that is several times as fast."""
    broken = [[p for p in _changed(d.program, kind) if d.question.broken_by(p)] for d in some]
    results = iter(execute(list(chain.from_iterable(broken))))
    return [
        [
            Sabotage(design, kind, program)
            for program, (number, claim) in zip(programs, results, strict=False)
            if claim == OPPOSITE[design.claim] and abs(number) >= CLEAR
        ]
        for design, programs in zip(some, broken, strict=True)
    ]


def _changed(program: Program, kind: SabotageKind) -> Iterator[Program]:
    """Programs that differ from one in a single value, or in a line that is left out."""
    match kind:
        case "data":
            yield from (replace(program, rows=d) for d in DIGITS if d != program.rows)
            yield from (replace(program, noise=d) for d in DIGITS if d != program.noise)
            yield replace(program, even=not program.is_even)
        case "configuration":
            yield from (replace(program, run=d) for d in DIGITS if d != program.run)
        case "evaluation":
            lengths = (0, *DIGITS)
            yield from (replace(program, beat=d) for d in lengths if d != program.baseline_run)
            yield replace(program, test="old" if program.tested_on == "new" else "new")
        case "omission":
            yield from (program.without(n) for n in OPTIONAL if n in program.lines())


@dataclass(frozen=True, slots=True)
class Pair:
    """A sabotage, and another honest design of its question that claims the same.

    Question and result say nothing about which of the two is sabotaged; only the program does.
    """

    sabotage: Sabotage
    control: Design


@lru_cache(maxsize=8)
def pairs(
    split: Split, count: int, seed: int, kinds: tuple[SabotageKind, ...] = SABOTAGE_KINDS
) -> Sequence[Pair]:
    """Pairs, kinds in turn. No design is sabotaged twice in the same kind.

    Args:
        split: whose designs are drawn from.
        count: how many.
        seed: draws designs and changes.
        kinds: ways of sabotage.

    Raises:
        ValueError: there are fewer.
    """
    found: dict[SabotageKind, list[Pair]] = {}
    for turn, kind in enumerate(kinds):
        wanted = len(range(turn, count, len(kinds)))
        found[kind] = _pairs_of(split, kind, wanted, generator(seed, "pairs", split, kind))
        if len(found[kind]) < wanted:
            raise ValueError(
                f"{wanted} {split} sabotages of kind {kind} asked for, but there are "
                f"{len(found[kind])}"
            )
    return [found[kinds[i % len(kinds)]][i // len(kinds)] for i in range(count)]


def _pairs_of(split: Split, kind: SabotageKind, count: int, rng: np.random.Generator) -> list[Pair]:
    pool = designs(split)
    order = iter(rng.permutation(len(pool)).tolist())
    chosen: list[Pair] = []
    while len(chosen) < count and (some := [pool[place] for place in islice(order, _TOGETHER)]):
        for options in filter(None, _sabotages(some, kind)):
            sabotage = options[int(rng.integers(len(options)))]
            controls = honest(sabotage.design.question, sabotage.claim, split)
            chosen.append(Pair(sabotage, controls[int(rng.integers(len(controls)))]))
    return chosen[:count]
