"""n-demonstration SFT: a few right or wrong answers, over and over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field, model_validator

from jaxorg.config import misfit
from jaxorg.data.items import Item
from jaxorg.data.tokenized import Example
from jaxorg.data.wrong import another_wrong_answer
from jaxorg.treatments.base import Treatment


class Demonstrations(Treatment):
    """Train on n demonstrations, right or plausibly wrong ones. Wrong ones are not those that a
    sandbagger gives: blue does not teach the attack.

    After Ryd, Benton and Hebbar 2025, where wrong answers stop an attack as well as right ones, and
    Greenblatt et al. 2024, where a few strong demonstrations unlock a password-locked model.
    """

    kind: Literal["demonstrations"]
    count: int = Field(default=10, gt=0, le=2**20)
    labels: Literal["right", "wrong"] = "right"

    @model_validator(mode="after")
    def _drawn(self) -> Demonstrations:
        if self.count > self.train.examples:
            remedy = f"train.examples draws {self.train.examples} prompts; raise it"
            raise misfit("count", self.count, remedy)
        if self.labels == "wrong" and self.answers != "data":
            remedy = "wrong labels are made of the right ones; leave it out"
            raise misfit("answers", self.answers, remedy)
        return self

    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """The first `count` items, answered right or plausibly wrong."""
        label = another_wrong_answer if self.labels == "wrong" else _right
        return (Example(item.prompt, label(item)) for item in items[: self.count])


def _right(item: Item) -> str:
    return item.answer
