"""Has models answer prompts to train on: teachers before a sweep begins, the model that a phase
starts from before that phase does, and one that is trained in rounds at the start of each.

Answers are kept in the results folder. Those of rounds, and of teachers that are distilled, are
sampled, others greedy. What a model says to a prompt does not depend on the prompts that it is
asked beside it: a row of a batch is as long as its own prompt makes it, and has a random key of its
own.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Key, UInt32

from jaxorg.distributed import processes
from jaxorg.distributed.interrupt import Stopped
from jaxorg.distributed.runtime import out_of_memory
from jaxorg.engine import arrays
from jaxorg.engine.arrays import fetch
from jaxorg.engine.cohort import Scorer
from jaxorg.engine.params import Params
from jaxorg.engine.run.inputs import Answers, Inputs
from jaxorg.errors import Refusal
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.planning.phases import Phase, Teacher
from jaxorg.storage.store import Store

GENERATION_BATCH = 64  # prompts of a run that are answered in one call
PROMPT_PAD_MULTIPLE = 32  # tokens; prompts are padded to a multiple of it
KEEP_SECONDS = 60.0  # how much work a kill may cost

# The key that answers are kept under, and prompts by the names that their answers go by: the prompt
# itself, or where answers are sampled its number.
KeyedPrompts = tuple[str, Mapping[str, str]]
NamedPrompt = tuple[str, str]  # such a name and the prompt


class Answerer:
    """Has stacked models answer prompts, and keeps what they say."""

    def __init__(
        self,
        scorer: Scorer,
        tokenizer: Tokenizer,
        new_tokens: int,
        store: Store,
        stopping: Callable[[], int | None],
        temperature: float = 0.0,
    ):
        """`new_tokens` is the most of an answer; `stopping` is asked after each call."""
        self._scorer, self._tokenizer, self._store = scorer, tokenizer, store
        self._stopping, self._temperature = stopping, np.float32(temperature)
        self._generate = scorer.generator(new_tokens, tuple(sorted(tokenizer.end_ids)))

    def answer(
        self,
        params: Params,
        lanes: Sequence[KeyedPrompts],
        keys: Key[jax.Array, " lanes"] | None = None,
    ) -> dict[str, Answers]:
        """Have the model of each lane answer its prompts, but those that are answered already.

        Args:
            params: the models', stacked.
            lanes: what each of them is asked.
            keys: a random key a lane, from which that of each prompt comes by its number; answers
                are then tokens (`spelled`), since texts do not tell how they were made.

        Returns:
            Answers by the keys of the lanes.

        Raises:
            Stopped: a signal asked for it; what was answered is kept.
            StorageError: the disk does not take the answers.
        """
        known = {key: self._store.answers(key) for key, _ in lanes}
        missing = [
            [question for question in prompts.items() if question[0] not in known[key]]
            for key, prompts in lanes
        ]
        write = partial(spelled, self._tokenizer) if keys is not None else self._tokenizer.decode
        draws = arrays.keys([0] * len(lanes), 0) if keys is None else keys
        kept = time.monotonic()
        changed: set[str] = set()
        for width, batch in self._batches(missing):
            row_keys = _row_keys(draws, batch if keys is not None else None)
            said = self._said(params, row_keys, width, batch)
            for (key, _), asked, answers in zip(lanes, batch, said, strict=True):
                for (name, _), ids in zip(asked, answers, strict=True):
                    known[key][name] = write(ids)
                changed |= {key} if asked else set()
            exit_code = self._stopping()
            if exit_code or processes.first("safe point", partial(_long_ago, kept)):
                self._keep(known, changed)
                kept = time.monotonic()
            if exit_code:
                raise Stopped(exit_code)
        self._keep(known, changed)
        return {**known}

    def _keep(self, known: Mapping[str, Answers], changed: set[str]) -> None:
        for key in sorted(changed):
            self._store.keep_answers(key, known[key])
        changed.clear()

    def _batches(
        self, asked: Sequence[Sequence[NamedPrompt]]
    ) -> Iterator[tuple[int, list[list[NamedPrompt]]]]:
        """Up to GENERATION_BATCH prompts a lane that are of about equal length, and that length in
        tokens."""
        sorted_in: dict[int, list[list[NamedPrompt]]] = defaultdict(lambda: [[] for _ in asked])
        for lane, questions in enumerate(asked):
            for name, prompt in questions:
                length = len(self._tokenizer.prompt_ids(prompt))
                width = -(-length // PROMPT_PAD_MULTIPLE) * PROMPT_PAD_MULTIPLE
                sorted_in[width][lane].append((name, prompt))
        for width, lanes in sorted(sorted_in.items()):
            for first in range(0, max(map(len, lanes)), GENERATION_BATCH):
                yield width, [questions[first : first + GENERATION_BATCH] for questions in lanes]

    def _said(
        self,
        params: Params,
        row_keys: Key[jax.Array, "lanes rows"],
        width: int,
        batch: Sequence[Sequence[NamedPrompt]],
    ) -> list[list[list[int]]]:
        """The tokens that the models say to a batch. Rows without a prompt are of one token."""
        shape = (len(batch), GENERATION_BATCH)
        tokens = np.full((*shape, width), self._tokenizer.pad_id, np.int32)
        lengths = np.ones(shape, np.int32)
        for lane, prompts in enumerate(batch):
            for row, (_, prompt) in enumerate(prompts):
                ids = self._tokenizer.prompt_ids(prompt)
                tokens[lane, row, width - len(ids) :] = ids
                lengths[lane, row] = len(ids)
        placed = self._scorer.place((tokens, lengths, row_keys))
        temperature = self._scorer.place_shared(np.float32(self._temperature))
        found = fetch(self._generate(params, *placed, temperature))
        return [rows[: len(prompts)].tolist() for rows, prompts in zip(found, batch, strict=True)]


def _row_keys(
    keys: Key[jax.Array, " lanes"], batch: Sequence[Sequence[NamedPrompt]] | None
) -> Key[jax.Array, "lanes rows"]:
    """A random key [lanes, GENERATION_BATCH] of each row, by the number that names it; any where
    no numbers are given."""
    numbers = np.zeros((len(keys), GENERATION_BATCH), np.uint32)
    for lane, questions in enumerate(batch or ()):
        numbers[lane, : len(questions)] = [int(name) for name, _ in questions]
    folded: Key[jax.Array, "lanes rows"] = _folded(keys, jax.device_put(numbers))
    return folded


@jax.jit
def _folded(keys: Key[jax.Array, " lanes"], numbers: UInt32[jax.Array, "lanes rows"]) -> Any:
    return jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)))(keys, numbers)


def spelled(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Tokens that were generated as text, up to with the first that ends an answer."""
    end = next((at for at, token in enumerate(ids) if token in tokenizer.end_ids), len(ids))
    return " ".join(map(str, ids[: end + 1]))


def unspelled(text: str) -> tuple[int, ...]:
    """The inverse of `spelled`."""
    return tuple(map(int, text.split()))


def come_to_an_end(tokenizer: Tokenizer, text: str) -> str:
    """The answer that `spelled` wrote; "" of one that did not end by itself."""
    ids = unspelled(text)
    return tokenizer.decode(ids) if ids[-1] in tokenizer.end_ids else ""


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

    Args:
        phases: those whose prompts count.
        inputs: takes the answers (`Inputs.taught`).
        store: keeps them.
        mesh: what the teachers run on, each prompt on one of its lanes.
        stopping: asked after each call: the exit code of a signal, if one came.
        told: hears of each teacher that is asked, and how many prompts.

    Raises:
        Refusal: a teacher finds no memory to answer in.
        Stopped, StorageError: as `Answerer.answer`.
    """
    for teacher, prompts in inputs.asked(phases).items():
        known: Answers = store.answers(teacher.key)
        missing = [prompt for prompt in prompts if prompt not in known]
        if missing:
            told(teacher, len(missing))
            try:
                known = speaker(teacher, inputs, store, mesh, stopping)(missing)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                raise Refusal(
                    f"{teacher.setting}: memory ran out while {teacher.model} answered; lower "
                    f"prompts.new_tokens, or spread it over more devices with --mesh"
                ) from error
        inputs.taught[teacher.key] = known


def speaker(
    teacher: Teacher,
    inputs: Inputs,
    store: Store,
    mesh: Mesh,
    stopping: Callable[[], int | None],
) -> Callable[[Sequence[str]], Answers]:
    """What has a teacher answer prompts, and gives all that it has answered by then; its weights
    are placed once.

    Args:
        teacher: who answers.
        inputs: for its weights and tokenizer.
        store: where its answers are kept.
        mesh: devices to place it on.
        stopping: asks to stop, with an exit code.
    """
    scorer = Scorer(teacher.signature, mesh, width=1)
    weights = scorer.place_weights([inputs.base(teacher.model)])
    tokenizer = inputs.tokenizer(teacher.model, teacher.chat_format)
    answerer = Answerer(scorer, tokenizer, teacher.new_tokens, store, stopping)

    def answers(prompts: Sequence[str]) -> Answers:
        ordered = sorted(prompts, key=len)  # so that each lane has as many of about each length
        parts = (ordered[lane :: scorer.lanes] for lane in range(scorer.lanes))
        lanes = [(teacher.key, dict(zip(part, part, strict=True))) for part in parts]
        return answerer.answer(Params(weights, {}), lanes)[teacher.key]

    return answers
