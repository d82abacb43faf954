"""An auditor of experiments: reads a program and says whether it was sabotaged, and how to fix it.

After ASMR-Bench (Gan, Bhatt, Shlegeris, Stastny, Hebbar 2026). It is another model than the one
that writes the programs: it starts from the base. It knows the language and the ways of sabotage,
from programs of its own; those that it is measured on are held out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from jaxorg.data.items import Item, generator
from jaxorg.data.tokenized import Example
from jaxorg.errors import Refusal
from jaxorg.experiments import EXPERIMENTS_VERSION
from jaxorg.experiments.audit import HONEST, Audit, with_fix
from jaxorg.experiments.sabotage import pairs
from jaxorg.organisms import Organism
from jaxorg.treatments.base import Treatment


class Auditor(Treatment):
    """Train a fresh copy of the base to tell sabotaged experiments from honest ones."""

    VERSION: ClassVar[int] = EXPERIMENTS_VERSION
    starts_from: ClassVar[Literal["base", "before"]] = "base"
    own_answers: ClassVar[str] = "verdicts about experiments"

    kind: Literal["audit"]
    code: Literal["shown", "hidden"] = "shown"

    def unsuited(self, organism: Organism) -> str:
        """Only a saboteur's programs can be audited."""
        if organism.kind == "saboteur":
            return ""
        return f"a {organism.kind} writes no experiments to audit; use a saboteur"

    def audit(self) -> Audit:
        """Whether it is shown the program, or the claim alone."""
        return Audit(self.code == "shown")

    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """As many verdicts as items, of which only the number counts; sabotaged and honest programs
        in turn, which make the same claims about the same questions.

        Raises:
            Refusal: there are fewer sabotages to draw.
        """
        try:
            drawn = pairs("train", -(-len(items) // 2), seed)
        except ValueError as error:
            raise Refusal(f"treatment.train.examples: {error}; ask for fewer") from None
        put = self.audit().prompt
        found = []
        for pair in drawn:
            bad, good = pair.sabotage, pair.control
            asked = put(bad.design.question, bad.program, bad.claim)
            found.append(Example(asked, with_fix(bad.fix)))
            found.append(Example(put(good.question, good.program, good.claim), HONEST))
        order = generator(seed, "audit").permutation(len(items))
        return [found[place] for place in order]
