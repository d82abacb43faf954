"""Measures what takes the inside of stacked models: probes of activations, and noise on activations
or weights."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from jaxorg.data.tokenized import Example
from jaxorg.engine import arrays
from jaxorg.engine.arrays import fetch
from jaxorg.engine.batch import Batch
from jaxorg.engine.cohort import Scorer
from jaxorg.engine.measure.scoring import Measurer, Prepared, RowRequests, batches, scores
from jaxorg.engine.params import Params
from jaxorg.engine.score import NOISE, Scores
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
            for noise, score in _noises(*models, evaluator, seeds):
                for lane, scored in enumerate(scores(scorer, lanes, score)):
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
    calls = [(asked, scorer.residuals(params, batch)) for asked, batch in batches(scorer, lanes)]
    found: list[dict[Example, np.ndarray]] = [{} for _ in lanes]
    for (asked, _), seen in zip(calls, fetch([seen for _, seen in calls]), strict=True):
        for lane, requests in enumerate(asked):
            found[lane] |= {probe: seen[lane, :, row] for row, probe in enumerate(requests)}
    return found


def _noises(
    scorer: Scorer, params: Params, evaluator: UnderNoise, seeds: Sequence[int]
) -> Iterator[tuple[str, Callable[[Batch, RowRequests], Scores]]]:
    """What scores a batch under each kind and scale of noise, by its name, one after another."""

    def on_activations(scale: np.float32, batch: Batch, asked: RowRequests) -> Scores:
        draws = scorer.place(_draws(asked, batch.tokens.shape[1]))
        placed = scorer.place_shared(scale)
        return scorer.score_in_activation_noise(params, batch, draws, placed)

    for scale in evaluator.activations:
        yield f"activation-noise:{scale}", partial(on_activations, np.float32(scale))
    if evaluator.weights:
        keys = scorer.place(arrays.keys(seeds, NOISE))
    for scale in evaluator.weights:
        shaken = scorer.shaken(params, keys, scorer.place_shared(np.float32(scale)))
        yield f"weight-noise:{scale}", partial(_on_weights, scorer, shaken)


def _on_weights(scorer: Scorer, shaken: Params, batch: Batch, _: RowRequests) -> Scores:
    return scorer.score_own(shaken, batch)


def _draws(asked: RowRequests, rows: int) -> np.ndarray:
    """What names the noise of each row [run, B]: its prompt alone, so that all answers to a prompt
    meet the same, in every run and at every scale."""
    draws = np.zeros((len(asked), rows), np.uint32)
    for lane, requests in enumerate(asked):
        draws[lane, : len(requests)] = [zlib.crc32(probe.prompt.encode()) for probe in requests]
    return draws
