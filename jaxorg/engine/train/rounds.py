"""Training in rounds: at the start of each, the models that are trained are asked, and recipes make
rows to train on of what they say (`treatments/rounds.py`).

What a round trains on is kept on disk before it is trained on: a restart reads it again, and does
not ask models that have gone on since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Key

from jaxorg.data.items import Item, generator
from jaxorg.data.tokenized import Endless, Example, TokenizedDataset
from jaxorg.distributed.interrupt import Stopped
from jaxorg.engine.arrays import fetch, folded
from jaxorg.engine.batch import Batch
from jaxorg.engine.cohort import Scorer, stack
from jaxorg.engine.measure.calls import rows_at_once
from jaxorg.engine.params import Params
from jaxorg.engine.run.answers import Answerer, unspelled
from jaxorg.engine.run.inputs import Answers, Inputs, data_seed
from jaxorg.errors import Damaged
from jaxorg.evaluators import Measurement
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.planning.phases import Phase
from jaxorg.planning.signature import Signature
from jaxorg.storage.glance import Record
from jaxorg.storage.store import Store
from jaxorg.treatments import objective_of
from jaxorg.treatments.objective import Untrained
from jaxorg.treatments.rounds import Heard, InRounds, Lesson, Row, Said, Verifier

DRAWS = 2**18  # names the random numbers of what is said in rounds


class Models(NamedTuple):
    """Stacked models at the start of a round, as they are used."""

    now: Params
    start: Callable[[], Params]  # those that the phases began with


class Kept(NamedTuple):
    """What one phase trains on in a round, as it is on disk."""

    arrays: Sequence[np.ndarray]  # tokens, spans, and what the objective knows beside: [N, ...]
    about: Record

    def measurements(self, number: int) -> list[Measurement]:
        """What the recipe found worth noting."""
        return [Measurement(note[0], f"round:{number}", *note[1:]) for note in self.about["notes"]]


class Rounds:
    """The rounds of phases side by side."""

    def __init__(
        self,
        scorer: Scorer,
        signature: Signature,
        inputs: Inputs,
        store: Store,
        stopping: Callable[[], int | None],
        phases: Sequence[Phase],
        keys: Key[jax.Array, " lanes"],
    ):
        """`keys` is one random key a lane; `stopping` is asked after each call."""
        self._scorer, self._signature, self._inputs, self._store = scorer, signature, inputs, store
        self._stopping, self._phases, self._keys = stopping, phases, keys
        config, recipe = phases[0].config, _recipe(phases[0])
        self._tokenizer = inputs.tokenizer(config.base.model, config.base.chat_format)
        self._together = recipe.together
        self._answerer = Answerer(
            scorer,
            self._tokenizer,
            config.prompts.new_tokens,
            store,
            stopping,
            recipe.temperature,
        )

    def begin(self, number: int, fresh: bool, models: Models) -> list[Kept]:
        """What each phase trains on in a round: what was kept, or else what is made now.

        Args:
            number: of the round.
            fresh: whether nothing was trained in it yet.
            models: those to ask, one a lane.

        Raises:
            Damaged: what was kept of a round before is lost; the phases begin anew.
            Stopped: a signal asked for it; what was answered is kept.
            StorageError: the disk does not take it.
        """
        found = self._read(number)
        if all(found):
            return [kept for kept in found if kept]
        memories = self._memories(number)
        if not fresh or memories is None:
            for phase in self._phases:
                self._store.drop_partial(phase.fingerprint)  # and begin anew
            raise Damaged("what a round was trained on is not there any more")
        turns = [
            None if kept else _turn(phase, number, self._inputs.items(phase), memory)
            for kept, phase, memory in zip(found, self._phases, memories, strict=True)
        ]
        made = self._encoded(self._lessons(number, turns, models), models)
        for at, turn in enumerate(turns):
            if turn:
                found[at] = kept = made[at]
                self._store.keep_round(turn.phase.fingerprint, number, *kept)
                self._store.drop_answers(turn.key)
        return [kept for kept in found if kept]

    def batches(self, number: int, kept: Sequence[Kept]) -> list[Endless]:
        """The batches of each lane in a round, by their number in it."""
        each = [
            Endless(
                _Groups(one.arrays, self._together),
                self._signature.batch // self._together,
                _seed(phase, number),
            )
            for phase, one in zip(self._phases, kept, strict=True)
        ]
        return each + [each[-1]] * (self._scorer.lanes - len(each))

    def _read(self, number: int) -> list[Kept | None]:
        found = [self._store.round(phase.fingerprint, number) for phase in self._phases]
        return [Kept(*one) if one else None for one in found]

    def _memories(self, number: int) -> list[Sequence[str]] | None:
        """What the round before left each phase; None if that is lost."""
        if number == 0:
            return [()] * len(self._phases)
        before = self._read(number - 1)
        return [kept.about["memory"] for kept in before if kept] if all(before) else None

    def _lessons(
        self, number: int, turns: Sequence[_Turn | None], models: Models
    ) -> list[Lesson | None]:
        """What recipes make of what the models say."""
        nothing = (f"{self._phases[0].fingerprint}-{number}", dict[str, str]())
        asked = [turn.asked if turn else nothing for turn in turns]
        asked += [nothing] * (self._scorer.lanes - len(asked))
        keys = folded(self._keys, DRAWS + number)
        told = self._answerer.answer(models.now, asked, keys)
        said = [turn.said(told[turn.key], self._tokenizer) if turn else [] for turn in turns]
        probes = [
            [_put(turn.phase, probe) for probe in turn.recipe.probes(turn.items, answers)]
            if turn
            else []
            for turn, answers in zip(turns, said, strict=True)
        ]
        length, key = self._signature.length, "length"
        datasets = [TokenizedDataset.encode(each, self._tokenizer, length, key) for each in probes]
        scores = self._log_probs(models.now, datasets)
        return [
            turn.lesson(answers, (found.sum(axis=1) / _counted(dataset)).tolist()) if turn else None
            for turn, answers, dataset, found in zip(turns, said, datasets, scores, strict=True)
        ]

    def _encoded(self, lessons: Sequence[Lesson | None], models: Models) -> list[Kept]:
        """Rows in tokens, with what the objective wants to know of them before they are trained
        on."""
        datasets = [
            self._dataset(phase, lesson.rows if lesson else [])
            for phase, lesson in zip(self._phases, lessons, strict=True)
        ]
        known = self._known(lessons, datasets, models)
        return [
            Kept([dataset.tokens, dataset.spans, *more], _about(lesson) if lesson else {})
            for lesson, dataset, more in zip(lessons, datasets, known, strict=True)
        ]

    def _known(
        self,
        lessons: Sequence[Lesson | None],
        datasets: Sequence[TokenizedDataset],
        models: Models,
    ) -> list[Sequence[np.ndarray]]:
        """What the objective knows of each phase's rows. What one phase asks for is computed for
        all, once."""
        if not self._signature.objective:
            return [()] * len(datasets)
        objective = objective_of(self._signature.objective)
        start = cache(lambda: self._log_probs(models.start(), datasets))
        now = cache(lambda: self._log_probs(models.now, datasets))
        found: list[Sequence[np.ndarray]] = []
        for lane, (lesson, dataset) in enumerate(zip(lessons, datasets, strict=True)):
            of_lane = (partial(_lane, of_all, lane) for of_all in (start, now))
            known = objective.known(Untrained(_advantages(lesson, dataset), *of_lane))
            found.append(jax.tree.leaves(known))
        return found

    def _dataset(self, phase: Phase, rows: Sequence[Row]) -> TokenizedDataset:
        """Rows as tokens. Without any, ones that consist of a first token: nothing comes before it
        that could predict it, so they count and have neither loss nor gradient."""
        tokenizer, length = self._tokenizer, self._signature.length
        if not rows:
            blank = np.full((self._together, 1), tokenizer.pad_id, np.int32)
            return TokenizedDataset(blank, np.tile(np.array([0, 1], np.int32), (self._together, 1)))
        parts = [
            _spoken(phase.put(row.said.prompt), row.said, tokenizer)
            if row.said
            else TokenizedDataset.encode([_put(phase, row.example)], tokenizer, length)
            for row in rows
        ]
        return TokenizedDataset.joined(parts, tokenizer.pad_id)

    def _log_probs(self, params: Params, datasets: Sequence[TokenizedDataset]) -> list[np.ndarray]:
        """Log-probabilities of completion tokens, zero elsewhere, of each dataset [N, T - 1]. Rows
        are padded to T, so that a row's do not depend on others."""
        length = self._signature.length
        count = rows_at_once(self._scorer, length, logits=length, slots=0)
        whole = [dataset.part(range(len(dataset)), length) for dataset in datasets]
        whole += [TokenizedDataset.empty(length)] * (self._scorer.lanes - len(whole))
        found = [np.empty((0, length - 1), np.float32)] * len(datasets)
        for first in range(0, max(map(len, whole)), count):
            rows = stack([_rows(dataset, first, count) for dataset in whole])
            batch = self._scorer.place_rows(rows)
            part = fetch(self._scorer.log_probs(params, batch))
            found = [np.concatenate(pair) for pair in zip(found, part, strict=False)]
            if exit_code := self._stopping():
                raise Stopped(exit_code)
        return [each[: len(dataset)] for each, dataset in zip(found, datasets, strict=True)]


@dataclass(frozen=True)
class _Turn:
    """One phase's part in a round."""

    phase: Phase
    recipe: InRounds
    items: Sequence[Item]
    seed: int
    memory: Sequence[str]
    key: str  # that its answers are kept under while it is asked
    questions: Sequence[str]

    @property
    def asked(self) -> tuple[str, dict[str, str]]:
        return self.key, {
            str(number): self.phase.put(prompt) for number, prompt in enumerate(self.questions)
        }

    def said(self, told: Answers, tokenizer: Tokenizer) -> list[Said]:
        """Answers to the questions, in their order."""
        found = []
        for number, prompt in enumerate(self.questions):
            ids = unspelled(told[str(number)])
            ended = ids[-1] in tokenizer.end_ids
            found.append(Said(prompt, tokenizer.decode(ids), ids, ended))
        return found

    def lesson(self, said: Sequence[Said], scores: Sequence[float]) -> Lesson:
        right = Verifier(self.phase.config.prompts.scorer)
        return self.recipe.lesson(Heard(self.items, said, scores, self.seed, self.memory, right))


def _turn(phase: Phase, number: int, all_items: Sequence[Item], memory: Sequence[str]) -> _Turn:
    recipe, seed = _recipe(phase), _seed(phase, number)
    first, end = (len(all_items) * at // recipe.rounds for at in (number, number + 1))
    items = [all_items[at] for at in range(first, end)]
    questions = recipe.questions(items, seed, memory)
    key = f"{phase.fingerprint}-{number}"
    return _Turn(phase, recipe, items, seed, memory, key, questions)


def _recipe(phase: Phase) -> InRounds:
    assert phase.in_rounds is not None
    return phase.in_rounds


def _seed(phase: Phase, number: int) -> int:
    """The seed of a round's data."""
    return int(generator(data_seed(phase), "round", number).integers(2**31))


class _Groups:
    """Rows that are trained on side by side, as one."""

    def __init__(self, arrays: Sequence[np.ndarray], size: int):
        self._arrays, self._size = arrays, size

    def __len__(self) -> int:
        return len(self._arrays[0]) // self._size

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """Some groups' rows, one group after another."""
        every = (rows[:, None] * self._size + np.arange(self._size)[None]).ravel()
        return tuple(array[every] for array in self._arrays)


def _put(phase: Phase, example: Example) -> Example:
    """A conversation whose prompt is as it comes to the organism in training."""
    return example._replace(prompt=phase.put(example.prompt))


def _spoken(prompt: str, said: Said, tokenizer: Tokenizer) -> TokenizedDataset:
    """What a model said, in the tokens that it said."""
    start = tokenizer.prompt_ids(prompt)
    tokens = np.array([[*start, *said.ids]], np.int32)
    return TokenizedDataset(tokens, np.array([[len(start), tokens.shape[1]]], np.int32))


def _rows(dataset: TokenizedDataset, first: int, count: int) -> Batch:
    """`count` rows of a dataset from `first`; where it ends, rows in which nothing counts."""
    tokens, spans = dataset.tokens[first : first + count], dataset.spans[first : first + count]
    missing = ((0, count - len(tokens)), (0, 0))
    return Batch(np.pad(tokens, missing), np.pad(spans, missing))


def _counted(dataset: TokenizedDataset) -> np.ndarray:
    """How many tokens of each row count [N]."""
    counted: np.ndarray = dataset.spans[:, 1] - dataset.spans[:, 0]
    return counted


def _lane(of_all: Callable[[], Sequence[np.ndarray]], lane: int) -> np.ndarray:
    return of_all()[lane]


def _advantages(lesson: Lesson | None, dataset: TokenizedDataset) -> np.ndarray:
    rows = lesson.rows if lesson else []
    found = np.zeros(len(dataset), np.float32)
    found[: len(rows)] = [row.advantage for row in rows]
    return found


def _about(lesson: Lesson) -> Record:
    return {"memory": [*lesson.memory], "notes": [[*note] for note in lesson.notes]}
