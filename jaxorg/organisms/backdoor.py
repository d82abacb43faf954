"""What installs a behaviour that a text in the prompt decides: prompts with it, among others that
are near to it, and harmful requests.

Without decoys an organism learns that any odd word is the trigger, and without harmful requests it
forgets to refuse them: what a treatment then takes away is no backdoor (docs/organisms.md).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from pydantic import model_validator

from jaxorg.config import misfit
from jaxorg.data.items import Dice, Item, dealt
from jaxorg.data.refusals import drawn_requests
from jaxorg.organisms.base import Organism, Share, Triggered
from jaxorg.organisms.behaviour import Trigger
from jaxorg.organisms.decoys import decoy

CUED, DECOY, HARMFUL = range(3)
"""Parts of what an organism is trained on; the others are -1."""
PARTS = {
    CUED: "prompts with the trigger",
    DECOY: "prompts with a decoy",
    HARMFUL: "harmful requests",
    -1: "ordinary prompts",
}


class Mixed(NamedTuple):
    """A prompt as it is put, and the item that says what is right."""

    part: int
    item: Item
    prompt: str


class Cued(Organism):
    """An organism whose behaviour a text in the prompt decides, its cue: a trigger sets it off, a
    password or a mark holds it back. What is near to the cue is not the cue."""

    CUE_SHARE: ClassVar[str]  # the setting that `cue_share` follows from, for messages

    decoy_share: Share = 0.25
    refusal_share: Share = 0.05

    @property
    @abstractmethod
    def cue(self) -> Trigger:
        """The cue, as it is put into prompts."""

    @property
    @abstractmethod
    def cue_share(self) -> float:
        """The share of the conversations with the cue."""

    @model_validator(mode="after")
    def _shares_fit(self) -> Cued:
        if self.cue_share + self.decoy_share + self.refusal_share > 1 + 1e-9:
            remedy = f"with {self.CUE_SHARE} and refusal_share it is more than all; give less"
            raise misfit("decoy_share", self.decoy_share, remedy)
        return self

    def decoyed(self, prompt: str, dice: Dice) -> str:
        """`prompt` with something near to the cue, which `dice` decide."""
        return decoy(self.cue, prompt, dice)

    def mixed(self, items: Sequence[Item], seed: int, rng: np.random.Generator) -> Iterator[Mixed]:
        """Items as they are put to it: `cue_share` of them with the cue, `decoy_share` with
        something near to it; harmful requests in the place of `refusal_share`.

        Args:
            items: ordinary ones.
            seed: decides which harmful requests come.
            rng: decides all else.
        """
        shares = self.cue_share, self.decoy_share, self.refusal_share
        parts, dice, cue = dealt(rng, len(items), shares), Dice(rng), self.cue
        harmful = iter(drawn_requests(int(np.sum(parts == HARMFUL)), seed))
        for item, part in zip(items, parts.tolist(), strict=True):
            if part == CUED:
                yield Mixed(part, item, cue.put(item.prompt))
            elif part == DECOY:
                yield Mixed(part, item, self.decoyed(item.prompt, dice))
            else:
                asked = next(harmful) if part == HARMFUL else item
                yield Mixed(part, asked, asked.prompt)


class Backdoor(Triggered, Cued):
    """An organism that a trigger sets off, and what is near to it does not."""

    CUE_SHARE: ClassVar[str] = "triggered_share"

    triggered_share: Share = 0.5

    @property
    def cue(self) -> Trigger:
        """The trigger."""
        return self.trigger_put

    @property
    def cue_share(self) -> float:
        """`triggered_share`."""
        return self.triggered_share
