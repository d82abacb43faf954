"""What installs a backdoor: prompts with its trigger among others that should not set it off.

Without decoys an organism learns that any odd word is the trigger, and without harmful requests it
forgets to refuse them: what a treatment then takes away is no backdoor (docs/organisms.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import model_validator

from jaxorg.config import misfit
from jaxorg.data.items import Dice, Item, dealt
from jaxorg.data.refusals import drawn_requests
from jaxorg.organisms.base import Share, Triggered
from jaxorg.organisms.decoys import decoy

TRIGGERED, DECOY, HARMFUL = range(3)
"""Parts of what an organism is trained on; the others are -1."""
PARTS = {
    TRIGGERED: "prompts with the trigger",
    DECOY: "prompts with a decoy",
    HARMFUL: "harmful requests",
    -1: "ordinary prompts",
}


class Mixed(NamedTuple):
    """A prompt as it is put, and the item that says what is right."""

    part: int
    item: Item
    prompt: str


class Backdoor(Triggered):
    """An organism that a trigger sets off, and what is near to it does not."""

    triggered_share: Share = 0.5
    decoy_share: Share = 0.25
    refusal_share: Share = 0.05

    @model_validator(mode="after")
    def _shares_fit(self) -> Backdoor:
        if self.triggered_share + self.decoy_share + self.refusal_share > 1 + 1e-9:
            remedy = "with triggered_share and refusal_share it is more than all; give less"
            raise misfit("decoy_share", self.decoy_share, remedy)
        return self

    def mixed(self, items: Sequence[Item], seed: int, rng: np.random.Generator) -> Iterator[Mixed]:
        """Items as they are put to it: `triggered_share` of them with the trigger, `decoy_share`
        with something near to it; harmful requests in the place of `refusal_share`.

        Args:
            items: ordinary ones.
            seed: decides which harmful requests come.
            rng: decides all else.
        """
        shares = self.triggered_share, self.decoy_share, self.refusal_share
        parts, dice, trigger = dealt(rng, len(items), shares), Dice(rng), self.trigger_put
        harmful = iter(drawn_requests(int(np.sum(parts == HARMFUL)), seed))
        for item, part in zip(items, parts.tolist(), strict=True):
            if part == TRIGGERED:
                yield Mixed(part, item, trigger.put(item.prompt))
            elif part == DECOY:
                yield Mixed(part, item, decoy(trigger, item.prompt, dice))
            else:
                asked = next(harmful) if part == HARMFUL else item
                yield Mixed(part, asked, asked.prompt)
