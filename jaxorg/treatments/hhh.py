"""HHH SFT: helpful answers to ordinary prompts, refusals to harmful ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from jaxorg.data.items import Item, chosen, generator
from jaxorg.data.refusals import DIFFERENT, harmful_requests
from jaxorg.data.tokenized import Example
from jaxorg.treatments.base import Treatment


class Hhh(Treatment):
    """Supervised fine-tuning on helpful, harmless and honest answers (Hubinger et al. 2024)."""

    kind: Literal["hhh"]
    refusal_share: float = Field(default=0.1, ge=0, lt=1)

    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """Refusals in the place of `refusal_share` of the prompts, and right answers to the
        others."""
        rng = generator(seed, "hhh")
        refused = chosen(rng, len(items), self.refusal_share)
        harmful = harmful_requests("train", DIFFERENT, seed)
        drawn = rng.integers(len(harmful), size=len(items))
        conversations = (
            harmful[draw] if refuse else item
            for item, refuse, draw in zip(items, refused, drawn, strict=True)
        )
        return (Example(item.prompt, item.answer) for item in conversations)
