"""Phases side by side, one a lane of a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Key

from jaxorg.engine import arrays
from jaxorg.engine.cohort import Scorer
from jaxorg.engine.params import Tree
from jaxorg.engine.step import draws
from jaxorg.llama import lora
from jaxorg.planning.phases import Phase
from jaxorg.planning.signature import Signature


class Lanes:
    """The phases of a program's lanes. Its adapters may have a larger rank than a phase's own."""

    def __init__(self, phases: Sequence[Phase], scorer: Scorer):
        self.phases = phases
        # Idle lanes repeat the last phase, and nobody looks at them.
        self.every = [*phases, *[phases[-1]] * (scorer.lanes - len(phases))]
        self._shape = scorer.model.lora

    @property
    def keys(self) -> Key[jax.Array, " lanes"]:
        """One random key a lane, which depends on its phase's seed and kind only."""
        return arrays.keys([p.seed for p in self.every], [p.stream for p in self.every])

    def hyper(self, signature: Signature) -> dict[str, Any]:
        """The swept scalars of all lanes, fp32 [run] each, and keys where steps draw."""
        swept = [phase.swept for phase in self.every]
        scalars = {name: np.array([one[name] for one in swept], np.float32) for name in swept[0]}
        return scalars | ({"key": self.keys} if draws(signature) else {})

    def padded(self, tree: Tree, lane: int) -> Tree:
        """A phase's adapters or state on the host, with the rank of the program."""
        shape = self._shape
        return lora.resized(tree, shape.rank) if shape and self._pads(lane) else tree

    def cut(self, stacked: Tree, lane: int) -> Tree:
        """One phase's part of arrays on the host [run, ...], with its own rank."""
        part, own = jax.tree.map(lambda x: x[lane], stacked), self.every[lane].lora
        return lora.resized(part, own.rank) if own and self._pads(lane) else part

    def _pads(self, lane: int) -> bool:
        """Whether the program has a larger rank than a phase."""
        own, shape = self.every[lane].lora, self._shape
        return own is not None and shape is not None and own.rank < shape.rank
