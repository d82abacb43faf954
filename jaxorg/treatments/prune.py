"""Pruning: the smallest weights are set to zero, and ordinary SFT goes on without them."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from jaxorg.treatments.plain import Plain


class Prune(Plain):
    """Set the smallest `share` of each matrix in the blocks to zero (magnitude pruning, Han et al.
    2015), then train on the prompts' own answers with these kept at zero, as in fine-pruning (Liu
    et al. 2018), which chooses whole neurons by their activity instead. With `train.steps: 0`
    pruning is all that happens."""

    change: ClassVar[str] = "prune"

    kind: Literal["prune"]  # type: ignore[assignment]
    share: float = Field(default=0.2, ge=0, lt=1)

    def swept(self) -> dict[str, float]:
        """The share of each matrix that is set to zero."""
        return {"pruned_share": self.share}
