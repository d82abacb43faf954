"""The batches that stacked phases are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import numpy as np

from jaxorg.data.packing import Packed
from jaxorg.data.tokenized import Endless
from jaxorg.distributed import processes
from jaxorg.engine.batch import AnyBatch
from jaxorg.engine.cohort import CHUNK_STEPS
from jaxorg.engine.run.inputs import Answers, Inputs, data_seed
from jaxorg.engine.step import batch_shapes
from jaxorg.planning.phases import Phase
from jaxorg.planning.signature import Signature


class Batches:
    """The batches of stacked phases, from some step on."""

    def __init__(self, each: Sequence[Endless], signature: Signature, first: int = 0):
        """`each` are a phase's own; their first ones are those of step `first`."""
        self._each, self._shapes, self._first = each, batch_shapes(signature), first

    def chunk(self, start: int, count: int) -> AnyBatch:
        """Steps `start` to `start + count`, as [run, CHUNK_STEPS, B, ...]; later ones are empty."""
        lead = (len(self._each), CHUNK_STEPS)
        chunk: AnyBatch = jax.tree.map(lambda x: np.zeros((*lead, *x.shape), x.dtype), self._shapes)
        for run, batches in enumerate(self._each):
            for number in range(count):
                batch = batches[start - self._first + number]
                for whole, part in zip(jax.tree.leaves(chunk), batch, strict=True):
                    whole[run, number][tuple(map(slice, part.shape))] = part
        return chunk


def all_batches(
    phases: Sequence[Phase], inputs: Inputs, signature: Signature, said: Mapping[str, Answers]
) -> Batches:
    """Those of whole phases; each phase's are a function of its seed and the step.

    Args:
        phases: one a lane.
        inputs: has their conversations.
        signature: says how long a row is, how many are a batch, and whether they are packed.
        said: what models that are trained on their own answers said, by fingerprint.
    """
    datasets = processes.in_turn(
        "datasets", lambda: [inputs.dataset(phase, said.get(phase.fingerprint)) for phase in phases]
    )
    each = []
    for phase, dataset in zip(phases, datasets, strict=True):
        seed = data_seed(phase)
        rows = Packed(dataset, signature.length, seed) if signature.packing else dataset
        each.append(Endless(rows, signature.batch, seed))
    return Batches(each, signature)
