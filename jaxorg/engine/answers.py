"""Has models answer prompts to train on: teachers before a sweep begins, and the model that a phase
starts from before that phase does.

Answers are greedy, and kept in the results folder. What a model says to a prompt does not depend on
the prompts that it is asked beside it: a row of a batch is as long as its own prompt makes it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh

from jaxorg import processes
from jaxorg.engine.arrays import fetch
from jaxorg.engine.cohort import Scorer
from jaxorg.engine.inputs import Answers, Inputs
from jaxorg.engine.step import Tree
from jaxorg.interrupt import Stopped
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.plan import Phase, Teacher
from jaxorg.runtime import Refusal, out_of_memory
from jaxorg.store import Store

ROWS = 64  # prompts of a run that are answered in one call
BUCKET = 32  # tokens by which the lengths of rows differ
KEEP_SECONDS = 60.0  # how much work a kill may cost

Asked = tuple[str, Sequence[str]]  # the key that answers are kept under, and prompts


class Answerer:
    """Has stacked models answer prompts, and keeps what they say."""

    def __init__(
        self,
        scorer: Scorer,
        tokenizer: Tokenizer,
        new_tokens: int,
        store: Store,
        stopping: Callable[[], int | None],
    ):
        """`new_tokens` is the most of an answer; `stopping` is asked after each call."""
        self._scorer, self._tokenizer, self._store = scorer, tokenizer, store
        self._stopping = stopping
        self._generate = scorer.generator(new_tokens, tuple(sorted(tokenizer.end_ids)))
        lanes = scorer.lanes
        self._keys = scorer.place(jax.random.split(jax.random.key(0), (lanes, ROWS)))  # not used

    def answer(self, trainable: Tree, frozen: Tree, lanes: Sequence[Asked]) -> dict[str, Answers]:
        """Have the model of each lane answer its prompts, but those that are answered already.

        Returns:
            Answers by the keys of the lanes.

        Raises:
            Stopped: a signal asked for it; what was answered is kept.
            StorageError: the disk does not take the answers.
        """
        known = processes.in_turn(
            "answers", lambda: {key: self._store.answers(key) for key, _ in lanes}
        )
        missing = [[p for p in prompts if p not in known[key]] for key, prompts in lanes]
        kept = time.monotonic()
        changed: set[str] = set()
        for width, batch in self._batches(missing):
            said = self._said(trainable, frozen, width, batch)
            for (key, _), prompts, answers in zip(lanes, batch, said, strict=True):
                known[key].update(zip(prompts, answers, strict=True))
                changed |= {key} if prompts else set()
            exit_code = self._stopping()
            if exit_code or processes.first("seam", partial(_long_ago, kept)):
                self._keep(known, changed)
                kept = time.monotonic()
            if exit_code:
                raise Stopped(exit_code)
        self._keep(known, changed)
        return {**known}

    def _keep(self, known: Mapping[str, Answers], changed: set[str]) -> None:
        def keep() -> None:
            for key in sorted(changed):
                self._store.keep_answers(key, known[key])

        processes.first("keep", keep)
        changed.clear()

    def _batches(self, asked: Sequence[Sequence[str]]) -> Iterator[tuple[int, list[list[str]]]]:
        """Up to ROWS prompts a lane that are of about equal length, and that length in tokens."""
        sorted_in: dict[int, list[list[str]]] = defaultdict(lambda: [[] for _ in asked])
        for lane, prompts in enumerate(asked):
            for prompt in prompts:
                length = len(self._tokenizer.prompt_ids(prompt))
                sorted_in[-(-length // BUCKET) * BUCKET][lane].append(prompt)
        for width, lanes in sorted(sorted_in.items()):
            for first in range(0, max(map(len, lanes)), ROWS):
                yield width, [prompts[first : first + ROWS] for prompts in lanes]

    def _said(
        self, trainable: Tree, frozen: Tree, width: int, batch: Sequence[Sequence[str]]
    ) -> list[list[str]]:
        """What the models say to a batch. Rows without a prompt are of one token."""
        shape = (len(batch), ROWS)
        tokens = np.full((*shape, width), self._tokenizer.pad_id, np.int32)
        lengths = np.ones(shape, np.int32)
        for lane, prompts in enumerate(batch):
            for row, prompt in enumerate(prompts):
                ids = self._tokenizer.prompt_ids(prompt)
                tokens[lane, row, width - len(ids) :] = ids
                lengths[lane, row] = len(ids)
        placed = self._scorer.place((tokens, lengths))
        greedy = np.float32(0.0)
        found = fetch(self._generate(trainable, frozen, *placed, self._keys, greedy))
        return [
            [self._tokenizer.decode(ids.tolist()) for ids in rows[: len(prompts)]]
            for rows, prompts in zip(found, batch, strict=True)
        ]


def _long_ago(kept: float) -> bool:
    return time.monotonic() - kept > KEEP_SECONDS


def ask_teachers(
    phases: Sequence[Phase],
    inputs: Inputs,
    store: Store,
    mesh: Mesh,
    stopping: Callable[[], int | None],
    told: Callable[[Teacher, int], None],
) -> None:
    """Have teachers answer the prompts of some phases, as far as that is still to do.

    `told` hears of each teacher that is asked, and how many prompts.

    Raises:
        Refusal: a teacher finds no memory to answer in.
        Stopped, StorageError: as `Answerer.answer`.
    """
    for teacher, prompts in inputs.asked(phases).items():
        known: Answers = processes.in_turn("taught", partial(store.answers, teacher.key))
        missing = [prompt for prompt in prompts if prompt not in known]
        if missing:
            told(teacher, len(missing))
            try:
                known = _taught(teacher, missing, inputs, store, mesh, stopping)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                raise Refusal(
                    f"prompts.teacher: memory ran out while {teacher.model} answered; lower "
                    f"prompts.new_tokens, or spread it over more devices with --mesh"
                ) from error
        inputs.taught[teacher.key] = known


def _taught(
    teacher: Teacher,
    prompts: Sequence[str],
    inputs: Inputs,
    store: Store,
    mesh: Mesh,
    stopping: Callable[[], int | None],
) -> Answers:
    """All that a teacher has answered, prompts included that it is asked now."""
    scorer = Scorer(teacher.static, mesh, width=1)
    weights = scorer.place_weights([inputs.base(teacher.model)])
    tokenizer = inputs.tokenizer(teacher.model, teacher.chat_template)
    answerer = Answerer(scorer, tokenizer, teacher.new_tokens, store, stopping)
    ordered = sorted(prompts, key=len)  # so that each lane has as many of about each length
    lanes = [(teacher.key, ordered[lane :: scorer.lanes]) for lane in range(scorer.lanes)]
    return answerer.answer(weights, {}, lanes)[teacher.key]
