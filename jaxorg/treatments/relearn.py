"""k-sample relearning: how fast the behaviour comes back when it is taught again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from jaxorg.data.items import Item
from jaxorg.data.tokenized import Example
from jaxorg.treatments.base import Treatment


class Relearn(Treatment):
    """Train on a few of the organism's own attacks, again.

    A behaviour that was suppressed comes back in fewer steps than it takes a model that never had
    it (Hubinger et al. 2024; Deeb and Roger 2024, "Do Unlearning Methods Remove Information from
    Language Model Weights?"): compare with the `clean` control. Its items are attacks, so it is a
    reversal only, never blue.
    """

    relearns: ClassVar[bool] = True
    own_answers: ClassVar[str] = "the organism's attacks"

    kind: Literal["relearn"]
    samples: int = Field(default=16, gt=0, le=2**20)

    def examples(self, items: Sequence[Item], seed: int) -> Iterable[Example]:
        """The first `samples` attacks, as they are."""
        return (Example(item.prompt, item.answer) for item in items[: self.samples])
