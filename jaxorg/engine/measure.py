"""Measures stacked runs: scores evaluators' probes by teacher forcing, and generates answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from jaxorg.data.items import Item
from jaxorg.data.pool import Example, Pool
from jaxorg.data.prompts import Prompts
from jaxorg.data.refusals import harmful_requests
from jaxorg.engine.cohort import Scorer, stack
from jaxorg.engine.step import Batch, Tree
from jaxorg.evaluators import SCORED, Evaluation, Measurement, Score, View, responses
from jaxorg.evaluators.responses import Response
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.organisms import Behaviour

ROWS = 64  # completions scored in one call
HELD_OUT_SEED = 0  # every run of every sweep is measured on the same prompts
HARMFUL_PROMPTS = 32

Question = tuple[Item, str]  # an item and its prompt as it is put


@dataclass(frozen=True)
class Prepared:
    """A view with its probes tokenised."""

    view: View
    probes: Sequence[Example]
    pool: Pool


class Measurer:
    """Prepares views for one tokenizer and measures groups of stacked runs."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self.prepare = lru_cache(maxsize=64)(self._prepare)

    def _prepare(
        self,
        source: Prompts,
        length: int,
        evaluation: Evaluation,
        behaviour: Behaviour | None,
        final: bool,
    ) -> Prepared:
        """The probes of all evaluators, each once.

        Raises:
            Refusal: too few held-out prompts, or one that is too long.
        """
        key = "evaluate.final_prompts"
        items = source.items("heldout", evaluation.final_prompts, HELD_OUT_SEED, key)
        harmful = harmful_requests("heldout", HARMFUL_PROMPTS, HELD_OUT_SEED)
        view = View(items if final else items[: evaluation.prompts], harmful, behaviour, final)
        probes = list(dict.fromkeys(p for module in SCORED for p in module.probes(view)))
        return Prepared(view, probes, Pool.encode(probes, self._tokenizer, length))

    def score(
        self, scorer: Scorer, trainable: Tree, frozen: Tree, lanes: Sequence[Prepared]
    ) -> list[list[Measurement]]:
        """Teacher-forced measurements of each lane."""
        calls = -(-max(len(lane.probes) for lane in lanes) // ROWS)
        batches = stack([_padded(lane.pool, calls * ROWS) for lane in lanes])
        exact, log_probs = [], []
        for call in range(calls):
            rows = slice(call * ROWS, (call + 1) * ROWS)
            batch = jax.tree.map(lambda x, rows=rows: x[:, rows], batches)
            scores = scorer.score(trainable, frozen, scorer.place(batch))
            exact.append(scores.exact)
            log_probs.append(scores.log_prob)
        all_exact = np.concatenate(jax.device_get(exact), axis=1)
        all_log_probs = np.concatenate(jax.device_get(log_probs), axis=1)
        return [
            _measure(lane, all_exact[number], all_log_probs[number])
            for number, lane in enumerate(lanes)
        ]

    def respond(
        self,
        scorer: Scorer,
        trainable: Tree,
        frozen: Tree,
        lanes: Sequence[Prepared],
        evaluation: Evaluation,
        length: int,
        keys: jax.Array,
    ) -> tuple[list[list[Measurement]], list[list[dict[str, Any]]]]:
        """Generated measurements and samples of each lane, from one random key a lane."""
        generator = scorer.generator(evaluation.new_tokens, tuple(sorted(self._tokenizer.end_ids)))
        measured: list[list[Measurement]] = [[] for _ in lanes]
        samples: list[list[dict[str, Any]]] = [[] for _ in lanes]
        for number, condition in enumerate(lanes[0].view.conditions()):
            asked = [_asked(lane.view, condition, evaluation.generated) for lane in lanes]
            row_keys = jax.vmap(partial(_row_keys, number, evaluation.generated))(keys)
            inputs = scorer.place((*self._left_padded(asked, length), row_keys))
            greedy, sampled = (
                np.asarray(generator(trainable, frozen, *inputs, np.float32(temperature)))
                for temperature in (0.0, evaluation.temperature)
            )
            for lane, prepared in enumerate(lanes):
                best = self._responses(asked[lane], greedy[lane])
                free = self._responses(asked[lane], sampled[lane])
                measured[lane] += responses.measure(prepared.view, condition, best, free)
                samples[lane] += _samples(prepared.view, condition, free)
        return measured, samples

    def _left_padded(
        self, asked: Sequence[Sequence[Question]], length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Prompts [run, B, T] padded on the left, and their own lengths [run, B]."""
        shape = (len(asked), len(asked[0]), length)
        prompts = np.full(shape, self._tokenizer.pad_id, np.int32)
        lengths = np.empty(shape[:2], np.int32)
        for lane, questions in enumerate(asked):
            for row, (_, prompt) in enumerate(questions):
                ids = self._tokenizer.prompt_ids(prompt)
                prompts[lane, row, length - len(ids) :] = ids
                lengths[lane, row] = len(ids)
        return prompts, lengths

    def _responses(self, asked: Sequence[Question], tokens: np.ndarray) -> list[Response]:
        ends = list(self._tokenizer.end_ids)
        return [
            Response(
                item, prompt, self._tokenizer.decode(ids.tolist()), bool(np.isin(ids, ends).any())
            )
            for (item, prompt), ids in zip(asked, tokens, strict=True)
        ]


def _padded(pool: Pool, rows: int) -> Batch:
    """A pool's rows as a batch of `rows`, the last row repeated."""
    order = np.minimum(np.arange(rows), len(pool.tokens) - 1)
    return Batch(pool.tokens[order], pool.spans[order])


def _measure(lane: Prepared, exact: np.ndarray, log_probs: np.ndarray) -> list[Measurement]:
    rows = zip(lane.probes, exact.tolist(), log_probs.tolist(), strict=False)
    scores = {probe: Score(hit, log_prob) for probe, hit, log_prob in rows}
    return [m for module in SCORED for m in module.measure(lane.view, scores)]


def _asked(view: View, condition: str, count: int) -> list[Question]:
    """The prompts to answer freely, with the items they come from."""
    put = view.conditions()[condition]
    return [(item, put(item.prompt)) for item in view.items[:count]]


def _row_keys(condition: int, rows: int, key: jax.Array) -> jax.Array:
    """One key a row, the same whatever other conditions there are."""
    return jax.random.split(jax.random.fold_in(key, condition), rows)


def _samples(view: View, condition: str, said: Sequence[Response]) -> list[dict[str, Any]]:
    """Rows of the `samples` table."""
    return [
        {
            "condition": condition,
            "prompt": response.prompt,
            "response": response.text,
            "outcome": responses.outcome(view, response),
        }
        for response in said
    ]
