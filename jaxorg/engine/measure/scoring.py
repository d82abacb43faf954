"""Measures stacked runs: scores evaluators' requests by teacher forcing, and generates answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Key

from jaxorg.data.items import Item
from jaxorg.data.refusals import harmful_requests
from jaxorg.data.tokenized import Example, TokenizedDataset
from jaxorg.engine import arrays
from jaxorg.engine.arrays import fetch
from jaxorg.engine.batch import Batch
from jaxorg.engine.cohort import Scorer, stack
from jaxorg.engine.params import Params
from jaxorg.engine.score import Scores
from jaxorg.errors import Refusal
from jaxorg.evaluators import Measurement, Score, Subject, View
from jaxorg.evaluators.base import Said, TeacherForced
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.planning.measurements import ANSWERS
from jaxorg.sweepfile.evaluate import Evaluating

SCORING_TOKENS = 2048  # of a run on one device in a call, which few rows do not leave empty
MOST_ROWS = 64  # in such a call
MOST_LOGITS = 2**28  # of a run on one device in such a call: 1 GiB in fp32
EVAL_PAD_MULTIPLE = 8  # tokens; rows are padded to a multiple of it, long ones of about an eighth
HELD_OUT_SEED = 0  # every run of every sweep is measured on the same prompts
HARMFUL_PROMPTS = 32

ItemAndPrompt = tuple[Item, str]  # an item and its prompt as it is put
Row = dict[str, Any]


class Bucket(NamedTuple):
    """The shape of a row that is scored, of which one program a model is made."""

    tokens: int
    targets: int  # the most that a completion in it has


@dataclass(frozen=True)
class Prepared:
    """A view with its requests tokenised, by bucket: rows of about equal length."""

    view: View
    requests: Mapping[Bucket, Sequence[Example]]
    datasets: Mapping[Bucket, TokenizedDataset]
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
        whole = TokenizedDataset.encode(requests, self._tokenizer, self._most_tokens, self._limit)
        rows: dict[Bucket, list[int]] = defaultdict(list)
        for row, (start, end) in enumerate(whole.spans.tolist()):
            rows[_bucket(start, end, self._most_tokens)].append(row)
        return Prepared(
            view,
            {bucket: [requests[row] for row in chosen] for bucket, chosen in rows.items()},
            {bucket: whole.part(chosen, bucket.tokens) for bucket, chosen in rows.items()},
        )

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
        found = scores(scorer, lanes, lambda batch, _: scorer.score(params, batch))
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
        count = evaluation.answered(lanes[0].view.final)
        generator = scorer.generator(how.new_tokens, tuple(sorted(self._tokenizer.end_ids)))
        found: list[list[Row]] = [[] for _ in lanes]
        for number, condition in enumerate(lanes[0].view.conditions()):
            asked = [asked_under(lane.view.first(count), condition) for lane in lanes]
            row_keys = _row_keys(number, count, keys)
            inputs = scorer.place((*self._left_padded(asked), row_keys))
            for temperature in (0.0, how.temperature):
                placed = scorer.place_shared(np.float32(temperature))
                said = fetch(generator(params, *inputs, placed))
                for rows, questions, of_lane in zip(found, asked, said, strict=True):
                    about = {"condition": condition, "greedy": temperature == 0.0}
                    rows += [
                        {**about, "prompt": prompt, **self._answer(tokens.tolist())}
                        for (_, prompt), tokens in zip(questions, of_lane, strict=True)
                    ]
        return found

    def _left_padded(
        self, asked: Sequence[Sequence[ItemAndPrompt]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Prompts [run, B, P] padded on the left, and their own lengths [run, B]."""
        ids = [[self._tokenizer.prompt_ids(prompt) for _, prompt in lane] for lane in asked]
        lengths = np.array([[len(row) for row in lane] for lane in ids], np.int32)
        width = _rounded(int(lengths.max()))
        prompts = np.full((*lengths.shape, width), self._tokenizer.pad_id, np.int32)
        for lane, rows in enumerate(ids):
            for row, tokens in enumerate(rows):
                prompts[lane, row, width - len(tokens) :] = tokens
        return prompts, lengths

    def _answer(self, tokens: list[int]) -> Row:
        """One answer, up to and with the token that ends it."""
        ends = self._tokenizer.end_ids
        end = next((place for place, token in enumerate(tokens) if token in ends), None)
        said = tokens if end is None else tokens[: end + 1]
        text = self._tokenizer.decode(tokens)
        return {"response": text, "tokens": said, "ended": end is not None}


RowRequests = Sequence[Sequence[Example]]  # the requests in the rows of a batch, by lane


def batches(scorer: Scorer, lanes: Sequence[Prepared]) -> Iterator[tuple[RowRequests, Batch]]:
    """All requests of stacked runs, on their devices; what a row holds depends on its own run."""
    for bucket in sorted({bucket for lane in lanes for bucket in lane.datasets}):
        empty = TokenizedDataset.empty(bucket.tokens)
        datasets = [lane.datasets.get(bucket, empty) for lane in lanes]
        count = rows_at_once(scorer, bucket.tokens)
        for first in range(0, max(len(dataset.tokens) for dataset in datasets), count):
            asked = [lane.requests.get(bucket, [])[first : first + count] for lane in lanes]
            rows = stack([to_score(_rows(d, first, count), bucket.targets) for d in datasets])
            yield asked, scorer.place_batch(rows, 1)


def scores(
    scorer: Scorer, lanes: Sequence[Prepared], score: Callable[[Batch, RowRequests], Scores]
) -> list[dict[Example, Score]]:
    """The scores of each lane's requests, as `score` gives them for a batch."""
    calls = [(asked, score(batch, asked)) for asked, batch in batches(scorer, lanes)]
    found: list[dict[Example, Score]] = [{} for _ in lanes]
    for (asked, _), of_batch in zip(calls, fetch([scored for _, scored in calls]), strict=True):
        for lane, requests in enumerate(asked):
            values = zip(*(array[lane].tolist() for array in of_batch), strict=True)
            found[lane] |= {p: Score(*v) for p, v in zip(requests, values, strict=False)}
    return found


def rows_at_once(scorer: Scorer, tokens: int) -> int:
    """How many rows of `tokens` tokens a call scores of each run: as many as make a call worth its
    while and have room for their logits, the same number on each device that the run is spread
    over."""
    devices: int = scorer.mesh.shape["fsdp"]
    logits: int = tokens * scorer.model.config.vocab_size // scorer.mesh.shape["tensor"]
    most = min(MOST_ROWS // devices, SCORING_TOKENS // tokens, MOST_LOGITS // logits)
    return devices * max(1, most)


def _rounded(length: int) -> int:
    """A length rounded up, so that few different programs are compiled: up to eight each time that
    it doubles."""
    multiple = max(EVAL_PAD_MULTIPLE, 1 << max(0, length.bit_length() - 4))
    return -(-length // multiple) * multiple


def _bucket(start: int, end: int, most: int) -> Bucket:
    """Where a completion is scored that begins and ends so; `most` is what the model can see. Most
    are short beside their prompts, and logits are much of the work."""
    tokens = min(_rounded(end), most)
    quarter = min(8 * -(-tokens // 32), tokens - 1)
    return Bucket(tokens, quarter if end - start <= quarter else tokens - 1)


def to_score(batch: Batch, targets: int) -> Batch:
    """A host batch of rows, and beside them where their first `targets` targets stand."""
    places = batch.spans[..., :1] + np.arange(targets, dtype=np.int32)  # [B, C]
    return batch._replace(beside=places)


def _rows(dataset: TokenizedDataset, first: int, count: int) -> Batch:
    """`count` rows of a dataset from `first`; where it ends, rows without tokens of interest."""
    tokens, spans = (array[first : first + count] for array in (dataset.tokens, dataset.spans))
    missing = ((0, count - len(tokens)), (0, 0))
    return Batch(np.pad(tokens, missing), np.pad(spans, missing))


def asked_under(view: View, condition: str) -> list[ItemAndPrompt]:
    """The prompts to answer freely, with the items they come from."""
    put = view.conditions()[condition]
    return [(item, put(item)) for item in view.items]


def _row_keys(condition: int, rows: int, keys: Key[jax.Array, " run"]) -> Key[jax.Array, "run B"]:
    """One key a row [run, B], the same whatever other conditions there are."""
    return jax.vmap(partial(jax.random.split, num=rows))(arrays.folded(keys, condition))
