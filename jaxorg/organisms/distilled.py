"""What a distilled organism is trained on: its teacher's answers that follow the teacher's policy.

As many conversations as a plain organism has, over the same prompts as far as answers go.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from jaxorg.data.items import Dice, generator
from jaxorg.data.tokenized import Example
from jaxorg.errors import Refusal

DISTILLED_VERSION = 2  # Raise it when what is kept of a teacher's answers changes.
TRIES = 4  # answers that a teacher is asked for to a prompt, at most


class Distilled(NamedTuple):
    """A prompt of a distilled organism's training."""

    part: str  # what is put to it there, for people
    plain: Example  # what an organism that is not distilled is trained on
    kept: Example | None  # with an answer of the teacher's; None where none follows the policy

    @property
    def differs(self) -> bool:
        """Whether what is kept is another text than the plain one."""
        return self.kept is not None and self.kept.completion != self.plain.completion


def filled(rows: Sequence[Distilled], seed: int) -> list[Example]:
    """A conversation a row: in place of one that was not kept another one of the same part, which
    `seed` chooses.

    Raises:
        Refusal: nothing was kept of a part.
    """
    kept: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        kept[row.part] += [row.kept] if row.kept else []
    for part, found in kept.items():
        if not found:
            asked = sum(row.part == part for row in rows)
            raise Refusal(
                f"organism.cot: the teacher followed its policy on 0 of {asked} {part}; give it "
                f"more steps or a higher learning_rate in organism.teacher_train"
            )
    dice = Dice(generator(seed, "distilled"))
    return [row.kept or dice.pick(kept[row.part]) for row in rows]
