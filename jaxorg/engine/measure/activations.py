"""Measures what takes the inside of stacked models: probes of activations, and noise on activations
or weights."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import jax
import numpy as np

from jaxorg.data.tokenized import Example
from jaxorg.engine import arrays
from jaxorg.engine.arrays import fetch
from jaxorg.engine.cohort import Scorer
from jaxorg.engine.measure.calls import Group, groups
from jaxorg.engine.measure.scoring import Measurer, Passing, Prepared, scores
from jaxorg.engine.params import Params
from jaxorg.engine.score import NOISE
from jaxorg.evaluators import Evaluator, Measurement, View
from jaxorg.evaluators.base import OfActivations, UnderNoise


def measure(
    measurer: Measurer,
    scorer: Scorer,
    params: Params,
    views: Sequence[View],
    evaluators: Mapping[str, Evaluator],
    seeds: Sequence[int],
) -> list[dict[str, list[Measurement]]]:
    """Measurements of each lane, by evaluator.

    Args:
        measurer: for the models' tokenizer.
        scorer: of the stacked models.
        params: the models', stacked.
        views: one a lane.
        evaluators: who measures; those that do not look inside are passed over.
        seeds: of the lanes' runs.
    """
    models = scorer, params
    found: list[dict[str, list[Measurement]]] = [{} for _ in views]
    for name, evaluator in evaluators.items():
        own = [view.first(evaluator.prompts) for view in views]
        if isinstance(evaluator, OfActivations):
            lanes = [measurer.with_requests(view, evaluator.requests(view)) for view in own]
            for lane, seen in enumerate(residuals(*models, lanes)):
                found[lane][name] = evaluator.measure(own[lane], seen)
        elif isinstance(evaluator, UnderNoise):
            lanes = [measurer.with_requests(view, evaluator.requests(view)) for view in own]
            for each in found:
                each[name] = []
            for noise, passing in _noises(*models, evaluator, seeds):
                for lane, scored in enumerate(scores(scorer, lanes, passing)):
                    found[lane][name] += evaluator.measure(own[lane], noise, scored)
    return found


def residuals(
    scorer: Scorer, params: Params, lanes: Sequence[Prepared]
) -> list[dict[Example, np.ndarray]]:
    """The residual stream of each lane after each block at the last token of a probe's prompt.

    Args:
        scorer: of the stacked models.
        params: the models', stacked.
        lanes: the probes of each.

    Returns:
        fp32 [L, D] by probe, for each lane.
    """
    calls = []
    for group in groups(scorer, [lane.parts for lane in lanes]):
        placed = scorer.place_rows((group.prompts, group.lengths))
        calls.append((group, scorer.residuals(params, *placed)))
    found: list[dict[Example, np.ndarray]] = [{} for _ in lanes]
    for (group, _), seen in zip(calls, fetch([seen for _, seen in calls]), strict=True):
        for lane, part in enumerate(group.lanes):
            for examples, rows in part.requests.values():
                of = zip(examples, rows.of, strict=True)
                found[lane] |= {example: seen[lane, :, prompt] for example, prompt in of}
    return found


def _noises(
    scorer: Scorer, params: Params, evaluator: UnderNoise, seeds: Sequence[int]
) -> Iterator[tuple[str, Passing]]:
    """What scores completions under each kind and scale of noise, by its name, one after
    another."""
    for scale in evaluator.activations:
        noise = partial(_noise, scorer, scorer.place_shared(np.float32(scale)))
        yield f"activation-noise:{scale}", Passing(scorer.noisy_passes, params, noise)
    if evaluator.weights:
        keys = scorer.place(arrays.keys(seeds, NOISE))
    for scale in evaluator.weights:
        shaken = scorer.shaken(params, keys, scorer.place_shared(np.float32(scale)))
        yield f"weight-noise:{scale}", Passing(scorer.own_passes, shaken)


def _noise(scorer: Scorer, scale: jax.Array, group: Group) -> tuple[jax.Array, jax.Array]:
    """What names the noise of each prompt [run, G], and its scale: it follows from the prompt
    alone, so that all answers to it meet the same, in every run and at every scale."""
    draws = np.zeros(group.lengths.shape, np.uint32)
    for lane, part in enumerate(group.lanes):
        draws[lane, : len(part.prompts)] = [zlib.crc32(ids.tobytes()) for ids in part.prompts]
    return scorer.place(draws), scale
