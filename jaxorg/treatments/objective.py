"""What a training step lowers where that is not SFT's loss.

A treatment in rounds that has an objective of its own says so in its class: `objective = Objective(
...)`. The engine computes what every objective may want to know, and knows none by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

Hyper = Mapping[str, Any]  # name -> traced scalar


class Untrained(NamedTuple):
    """What may be known of N rows of at most T tokens before they are trained on.

    `start` and `now` are computed when they are asked for: log-probabilities of completion tokens,
    zero elsewhere, fp32 [N, T - 1].
    """

    advantages: np.ndarray  # fp32 [N]: as the recipe gave them
    start: Callable[[], np.ndarray]  # under the weights that the phase starts from
    now: Callable[[], np.ndarray]  # under those that the round starts from


class Objective(NamedTuple):
    """How an objective is computed, and what it knows of each row besides its tokens.

    `loss` takes, of one run's batch of B rows, in this order

    - log-probabilities of completion tokens, zero elsewhere, fp32 [B, T - 1];
    - which tokens these are, bool [B, T - 1];
    - how many they are, fp32 [];
    - what is known besides: a named tuple of arrays [B, ...];
    - the swept scalars, those that the treatment declares among them.

    `known` makes such a tuple of the rows of a round, with N in place of B.
    """

    loss: Callable[[jax.Array, jax.Array, jax.Array, Any, Hyper], jax.Array]
    known: Callable[[Untrained], Any]

    def shapes(self, rows: int, length: int) -> Any:
        """What is known of so many rows of so many tokens, as shapes."""
        each_token = partial(np.zeros, (rows, length - 1), np.float32)
        known = self.known(Untrained(np.zeros(rows, np.float32), each_token, each_token))
        return jax.tree.map(lambda found: jax.ShapeDtypeStruct(found.shape, found.dtype), known)
