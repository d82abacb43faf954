"""Has stacked models answer prompts of about equal length, in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Key

from jaxorg.engine.arrays import fetch
from jaxorg.engine.cohort import Scorer
from jaxorg.engine.measure.calls import Ids, padded
from jaxorg.engine.params import Params
from jaxorg.llama.generate import Asked


def generated(
    scorer: Scorer,
    generator: Callable[..., jax.Array],
    params: Params,
    lanes: Sequence[Sequence[Ids]],
    shape: tuple[int, int],
    keys: Key[jax.Array, "run rows"],
    temperatures: Sequence[float],
) -> np.ndarray:
    """What the model of each lane says to its prompts, which are read once.

    Args:
        scorer: of the stacked models.
        generator: as `Scorer.generator` gives it.
        params: the models', stacked.
        lanes: prompts in tokens, of each lane.
        shape: how many there are in a call, and the tokens that they are padded to.
        keys: random keys, one a row: of all prompts of a call at the first temperature, then at
            the next [run, temperatures * prompts].
        temperatures: at which each prompt is answered; 0 is greedy.

    Returns:
        Tokens, int32 [run, temperatures, prompts, new tokens].
    """
    count, width = shape
    prompts, lengths = padded(lanes, count, width)
    prefix = scorer.passes.prefill(params, scorer.place_rows(prompts))
    last = np.take_along_axis(prompts, lengths[..., None] - 1, axis=-1)[..., 0]
    of = np.broadcast_to(np.arange(count, dtype=np.int32), lengths.shape)
    times = (1, len(temperatures))
    rows = scorer.place((Asked(*(np.tile(x, times) for x in (of, lengths, last))), keys))
    warmth = np.repeat(np.array(temperatures, np.float32), count)
    said: np.ndarray = fetch(generator(params, prefix, *rows, scorer.place_shared(warmth)))
    return said.reshape(len(lanes), len(temperatures), count, -1)
