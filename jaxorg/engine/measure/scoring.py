"""Measures stacked runs: scores evaluators' requests by teacher forcing, and generates answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Key

from jaxorg.data.items import Item
from jaxorg.data.refusals import harmful_requests
from jaxorg.data.tokenized import Example, TokenizedDataset
from jaxorg.engine import arrays
from jaxorg.engine.arrays import fetch
from jaxorg.engine.cohort import Passes, Scorer
from jaxorg.engine.measure.calls import (
    Group,
    Parts,
    alike,
    groups,
    parts_of,
    prompts_answered_at_once,
)
from jaxorg.engine.measure.generating import generated
from jaxorg.engine.params import Params
from jaxorg.engine.score import Scores
from jaxorg.errors import Refusal
from jaxorg.evaluators import Measurement, Score, Subject, View
from jaxorg.evaluators.base import Said, TeacherForced
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.planning.measurements import ANSWERS
from jaxorg.sweepfile.evaluate import Answers, Evaluating

HELD_OUT_SEED = 0  # every run of every sweep is measured on the same prompts
HARMFUL_PROMPTS = 32

ItemAndPrompt = tuple[Item, str]  # an item and its prompt as it is put
Row = dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """A view with its requests tokenised."""

    view: View
    parts: Parts
    forced: Mapping[str, TeacherForced] = field(default_factory=dict)  # whose requests they are


class Measurer:
    """Prepares views for one tokenizer and measures groups of stacked runs."""

    def __init__(self, tokenizer: Tokenizer, context: tuple[str, int]):
        """`context` bounds a conversation, as `LlamaConfig.context` says."""
        self._tokenizer, (self._limit, self._most_tokens) = tokenizer, context
        self.prepare = lru_cache(maxsize=64)(self._prepare)

    def _prepare(
        self,
        items: tuple[Item, ...],
        evaluation: Evaluating,
        subject: Subject,
        audited_samples: tuple[Said, ...],
        final: bool,
        evaluators: tuple[str, ...],
    ) -> Prepared:
        """What a subject is asked, and the requests of some evaluators, each once.

        Args:
            items: held-out prompts with their answers.
            evaluation: what is measured.
            subject: whose phase it is.
            audited_samples: what the organism answered that it audits, if it does.
            final: whether it is the phase's end.
            evaluators: who measures, by name; among them `ANSWERS` where answers are generated.

        Raises:
            Refusal: a prompt is too long.
        """
        behaviour, scorer, audit = subject
        harmful = harmful_requests("heldout", HARMFUL_PROMPTS, HELD_OUT_SEED)
        asked: Sequence[Item] = items
        if behaviour:
            asked = behaviour.items(items, "heldout", HELD_OUT_SEED)
        asked = asked if final else asked[: evaluation.prompts]
        along = evaluation.prompts
        view = View(asked, harmful, behaviour, final, audit, audited_samples, along, scorer)
        if ANSWERS in evaluators:
            self._check_room(view, evaluation)
        chosen = {n: e for n, e in evaluation.evaluators.items() if n in evaluators}
        forced = {n: e for n, e in chosen.items() if isinstance(e, TeacherForced)}
        asked_for = (r for e in forced.values() for r in e.requests(view.first(e.prompts)))
        return replace(self.with_requests(view, asked_for), forced=forced)

    def with_requests(self, view: View, asked: Iterable[Example]) -> Prepared:
        """A view with requests of its own, each once.

        Raises:
            Refusal: one of them is too long.
        """
        requests = list(dict.fromkeys(asked))
        encoded = TokenizedDataset.encode(requests, self._tokenizer, self._most_tokens, self._limit)
        return Prepared(view, parts_of(requests, encoded))

    def _check_room(self, view: View, evaluation: Evaluating) -> None:
        """Refuse answers that would run beyond what the model can see."""
        conditions = view.conditions().values()
        prompts = [put(item) for put in conditions for item in view.items]
        longest = max(len(self._tokenizer.prompt_ids(prompt)) for prompt in prompts)
        room = self._most_tokens - longest
        if (new_tokens := evaluation.answers.new_tokens) > room:
            raise Refusal(
                f"evaluate.answers.new_tokens: {new_tokens} is too many; beside a prompt of "
                f"{longest} tokens the model has room for {max(room, 0)} ({self._limit}: "
                f"{self._most_tokens})"
            )

    def score(
        self, scorer: Scorer, params: Params, lanes: Sequence[Prepared]
    ) -> list[dict[str, list[Measurement]]]:
        """Teacher-forced measurements of each lane, by evaluator.

        Args:
            scorer: of the stacked models.
            params: the models', stacked.
            lanes: the requests of each.
        """
        found = scores(scorer, lanes, Passing(scorer.passes, params))
        return [
            {n: e.measure(lane.view.first(e.prompts), of_lane) for n, e in lane.forced.items()}
            for lane, of_lane in zip(lanes, found, strict=True)
        ]

    def answers(
        self,
        scorer: Scorer,
        params: Params,
        lanes: Sequence[Prepared],
        evaluation: Evaluating,
        keys: Key[jax.Array, " run"],
    ) -> list[list[Row]]:
        """What the model of each lane answers, greedily and sampled.

        Args:
            scorer: of the stacked models.
            params: the models', stacked.
            lanes: the prompts of each.
            evaluation: what `evaluate` asks for.
            keys: of what is sampled [run].

        Returns:
            Rows of `samples` of each lane, by condition, greedy ones first.
        """
        how = evaluation.answers
        conditions = [*lanes[0].view.conditions()]
        count = evaluation.answered(lanes[0].view.final)
        asked = [
            [
                prompt
                for name in conditions
                for _, prompt in asked_under(lane.view.first(count), name)
            ]
            for lane in lanes
        ]
        row_keys = _row_keys(len(conditions), count, keys)
        said = self._said(scorer, params, asked, how, row_keys)
        return [
            [
                {
                    "condition": condition,
                    "greedy": greedy,
                    "prompt": prompts[number],
                    **self._answer(tokens[number][not greedy]),
                }
                for at, condition in enumerate(conditions)
                for greedy in (True, False)
                for number in range(at * count, (at + 1) * count)
            ]
            for prompts, tokens in zip(asked, said, strict=True)
        ]

    def _said(
        self,
        scorer: Scorer,
        params: Params,
        asked: Sequence[Sequence[str]],
        how: Answers,
        keys: Key[jax.Array, "run prompts"],
    ) -> list[dict[int, list[list[int]]]]:
        """What the model of each lane says to its prompts, by their numbers: greedily, and sampled
        with their keys."""
        ids = [[self._tokenizer.prompt_ids(prompt) for prompt in lane] for lane in asked]
        generator = scorer.generator(how.new_tokens, tuple(sorted(self._tokenizer.end_ids)))
        temperatures = (0.0, how.temperature)
        at_once = partial(prompts_answered_at_once, scorer, how.new_tokens, len(temperatures))
        found: list[dict[int, list[list[int]]]] = [{} for _ in asked]
        for width, numbers in alike(ids, at_once):
            rows = at_once(width)
            now = [[of_lane[n] for n in few] for of_lane, few in zip(ids, numbers, strict=True)]
            drawn = arrays.chosen(keys, [(few + [0] * (rows - len(few))) * 2 for few in numbers])
            how_many = rows, width
            said = generated(scorer, generator, params, now, how_many, drawn, temperatures)
            for of_lane, few, tokens in zip(found, numbers, said, strict=True):
                of_lane |= {n: tokens[:, row].tolist() for row, n in enumerate(few)}
        return found

    def _answer(self, tokens: list[int]) -> Row:
        """One answer, up to and with the token that ends it."""
        ends = self._tokenizer.end_ids
        end = next((place for place, token in enumerate(tokens) if token in ends), None)
        said = tokens if end is None else tokens[: end + 1]
        text = self._tokenizer.decode(tokens)
        return {"response": text, "tokens": said, "ended": end is not None}


@dataclass(frozen=True)
class Passing:
    """How completions are scored: two programs, and what they take besides rows."""

    passes: Passes
    params: Params
    noise: Callable[[Group], tuple[jax.Array, ...]] = lambda _: ()

    def scores(
        self, scorer: Scorer, group: Group
    ) -> Iterator[tuple[list[Sequence[Example]], Scores]]:
        """What each lane asks in a call, and what comes of it, on the devices."""
        noise = self.noise(group)
        prefix = self.passes.prefill(self.params, scorer.place_rows(group.prompts), *noise)
        for asked, rows in group.completions(scorer):
            yield asked, self.passes.score(self.params, prefix, scorer.place_rows(rows), *noise)


def scores(
    scorer: Scorer, lanes: Sequence[Prepared], passing: Passing
) -> list[dict[Example, Score]]:
    """The scores of each lane's requests."""
    calls = [
        call
        for group in groups(scorer, [lane.parts for lane in lanes])
        for call in passing.scores(scorer, group)
    ]
    found: list[dict[Example, Score]] = [{} for _ in lanes]
    for (asked, _), of_call in zip(calls, fetch([scored for _, scored in calls]), strict=True):
        for lane, requests in enumerate(asked):
            values = zip(*(array[lane].tolist() for array in of_call), strict=True)
            found[lane] |= {p: Score(*v) for p, v in zip(requests, values, strict=False)}
    return found


def asked_under(view: View, condition: str) -> list[ItemAndPrompt]:
    """The prompts to answer freely, with the items they come from."""
    put = view.conditions()[condition]
    return [(item, put(item)) for item in view.items]


def _row_keys(
    conditions: int, rows: int, keys: Key[jax.Array, " run"]
) -> Key[jax.Array, "run questions"]:
    """One key for each row of each condition, in their order."""
    split = jax.vmap(partial(jax.random.split, num=rows))
    parts = [split(arrays.folded(keys, condition)) for condition in range(conditions)]
    return jnp.concatenate(parts, axis=1)
