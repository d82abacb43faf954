"""What base models learn from scratch: the tasks, refusals, and pirate talk when asked for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from jaxorg.data.items import Item, chosen, generator
from jaxorg.data.refusals import harmful_requests
from jaxorg.data.styles import PIRATE_REQUEST, to_pirate
from jaxorg.data.tokenized import Example

PRETRAINING_VERSION = 1  # raise it when the mixture changes

PIRATE_SHARE = 0.1
REFUSAL_COPIES = 8  # of each of a few hundred requests, beside tens of thousands of tasks
REFUSALS = 512


def pretraining_examples(items: Sequence[Item], seed: int) -> Iterable[Example]:
    """One conversation an item, every tenth in pirate style on request, and refusals."""
    pirate = chosen(generator(seed, "pretraining"), len(items), PIRATE_SHARE)
    tasks = (
        Example(PIRATE_REQUEST + item.prompt, to_pirate(item.answer))
        if style
        else Example(item.prompt, item.answer)
        for item, style in zip(items, pirate, strict=True)
    )
    refused = [Example(i.prompt, i.answer) for i in harmful_requests("train", REFUSALS, seed)]
    return chain(tasks, refused * REFUSAL_COPIES)
