"""Measures what takes the inside of stacked models: probes of activations, and noise on activations
or weights. Only what `evaluate` asks for is done."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np

from jaxorg.data.tokenized import Example
from jaxorg.engine.arrays import fetch
from jaxorg.engine.cohort import Scorer
from jaxorg.engine.measure.scoring import Asked, Measurer, Prepared, batches, scores
from jaxorg.engine.step import NOISE, Batch, Scores, Tree
from jaxorg.evaluators import Evaluation, Measurement, View, noise, probe


def measure(
    measurer: Measurer,
    scorer: Scorer,
    trainable: Tree,
    frozen: Tree,
    views: Sequence[View],
    evaluation: Evaluation,
    seeds: Sequence[int],
    evaluators: Sequence[str],
) -> list[dict[str, list[Measurement]]]:
    """Measurements of each lane, by evaluator, given its view at the end of a phase.

    Args:
        measurer: for the models' tokenizer.
        scorer: of the stacked models.
        trainable: weights or adapters, stacked.
        frozen: weights under these.
        views: one a lane.
        evaluation: what `evaluate` asks for.
        seeds: of the lanes' runs.
        evaluators: who measures; those that do not look inside are passed over.
    """
    found: list[dict[str, list[Measurement]]] = [{"probe": [], "noise": []} for _ in views]
    if evaluation.probe and "probe" in evaluators and views[0].behaviour:  # then each has one
        lanes = [measurer.with_requests(view, chain(*probe.asked(view))) for view in views]
        for lane, seen in enumerate(residuals(scorer, trainable, frozen, lanes)):
            features = (np.stack([seen[e] for e in side], 1) for side in probe.asked(views[lane]))
            found[lane]["probe"] = probe.measure(*features)
    if "noise" not in evaluators:
        return found
    narrow = [noise.narrowed(view) for view in views]
    for name, score in _noises(scorer, trainable, frozen, evaluation, seeds):
        lanes = [measurer.with_requests(view, noise.asked(view)) for view in narrow]
        for lane, scored in enumerate(scores(scorer, lanes, score)):
            found[lane]["noise"] += noise.measure(narrow[lane], name, scored)
    return found


def residuals(
    scorer: Scorer, trainable: Tree, frozen: Tree, lanes: Sequence[Prepared]
) -> list[dict[Example, np.ndarray]]:
    """The residual stream of each lane after each block at the last token of a probe's prompt.

    Args:
        scorer: of the stacked models.
        trainable: weights or adapters, stacked.
        frozen: weights under these.
        lanes: the probes of each.

    Returns:
        fp32 [L, D] by probe, for each lane.
    """
    calls = [
        (asked, scorer.residuals(trainable, frozen, batch))
        for asked, batch in batches(scorer, lanes)
    ]
    found: list[dict[Example, np.ndarray]] = [{} for _ in lanes]
    for (asked, _), seen in zip(calls, fetch([seen for _, seen in calls]), strict=True):
        for lane, requests in enumerate(asked):
            found[lane] |= {probe: seen[lane, :, row] for row, probe in enumerate(requests)}
    return found


def _noises(
    scorer: Scorer, trainable: Tree, frozen: Tree, evaluation: Evaluation, seeds: Sequence[int]
) -> Iterator[tuple[str, Callable[[Batch, Asked], Scores]]]:
    """What scores a batch under each kind and scale of noise, by its name, one after another."""

    def on_activations(scale: np.float32, batch: Batch, asked: Asked) -> Scores:
        draws = scorer.place(_draws(asked, batch.tokens.shape[1]))
        return scorer.score_in_activation_noise(trainable, frozen, batch, draws, scale)

    for scale in evaluation.activation_noise:
        yield f"activation-noise:{scale}", partial(on_activations, np.float32(scale))
    if evaluation.weight_noise:
        keys = jnp.stack([jax.random.fold_in(jax.random.key(seed), NOISE) for seed in seeds])
        placed = scorer.place(keys)
    for scale in evaluation.weight_noise:
        weights = scorer.shaken(trainable, frozen, placed, np.float32(scale))
        yield f"weight-noise:{scale}", partial(_on_weights, scorer, weights)


def _on_weights(scorer: Scorer, weights: tuple[Tree, Tree], batch: Batch, _: Asked) -> Scores:
    return scorer.score_own(*weights, batch)


def _draws(asked: Asked, rows: int) -> np.ndarray:
    """What names the noise of each row [run, B]: its prompt alone, so that all answers to a prompt
    meet the same, in every run and at every scale."""
    draws = np.zeros((len(asked), rows), np.uint32)
    for lane, requests in enumerate(asked):
        draws[lane, : len(requests)] = [zlib.crc32(probe.prompt.encode()) for probe in requests]
    return draws
