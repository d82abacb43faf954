"""Has models answer prompts to train on: teachers before a sweep begins, the model that a phase
starts from before that phase does, and one that is trained in rounds at the start of each.

Answers are kept in the results folder. Those of rounds, and of teachers that are distilled, are
sampled, others greedy. What a model says to a prompt does not depend on the prompts that it is
asked beside it: a row of a batch is as long as its own prompt makes it, and has a random key of its
own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
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
from jaxorg.engine.cohort import Scorer
from jaxorg.engine.measure.calls import alike, prompts_answered_at_once
from jaxorg.engine.measure.generating import generated
from jaxorg.engine.params import Params
from jaxorg.engine.run.inputs import Answers, Inputs
from jaxorg.errors import Refusal
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.planning.phases import Phase, Teacher
from jaxorg.storage.store import Store

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
        self._stopping, self._temperature = stopping, temperature
        self._generate = scorer.generator(new_tokens, tuple(sorted(tokenizer.end_ids)))
        self._at_once = partial(prompts_answered_at_once, scorer, new_tokens, 1)

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
        kept = time.monotonic()
        changed: set[str] = set()
        ids = [[self._tokenizer.prompt_ids(prompt) for _, prompt in lane] for lane in missing]
        for width, numbers in alike(ids, self._at_once):
            batch = [
                [of_lane[n] for n in few] for of_lane, few in zip(missing, numbers, strict=True)
            ]
            said = self._said(params, keys, width, batch)
            for (key, _), asked, answers in zip(lanes, batch, said, strict=True):
                for (name, _), tokens in zip(asked, answers, strict=True):
                    known[key][name] = write(tokens)
                changed |= {key} if asked else set()
            exit_code = self._stopping()
            if exit_code or processes.first("safe point", partial(_long_ago, kept)):
                self._keep(known, changed)
                kept = time.monotonic()
            if exit_code:
                raise Stopped(exit_code)
        self._keep(known, changed)
        return {**known}

    def _said(
        self,
        params: Params,
        keys: Key[jax.Array, " lanes"] | None,
        width: int,
        batch: Sequence[Sequence[NamedPrompt]],
    ) -> list[list[list[int]]]:
        """The tokens that the models say to a call's prompts."""
        rows = self._at_once(width)
        numbers = np.zeros((len(batch), rows), np.uint32)  # which names random keys
        if keys is None:  # and nothing is drawn from them
            keys = arrays.keys([0] * len(batch), 0)
        else:
            for lane, prompts in enumerate(batch):
                numbers[lane, : len(prompts)] = [int(name) for name, _ in prompts]
        ids = [[self._tokenizer.prompt_ids(prompt) for _, prompt in lane] for lane in batch]
        how = (rows, width), _folded(keys, jax.device_put(numbers)), (self._temperature,)
        found = generated(self._scorer, self._generate, params, ids, *how)[:, 0]
        return [lane[: len(prompts)].tolist() for lane, prompts in zip(found, batch, strict=True)]

    def _keep(self, known: Mapping[str, Answers], changed: set[str]) -> None:
        for key in sorted(changed):
            self._store.keep_answers(key, known[key])
        changed.clear()


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
        lanes = [(teacher.key, {prompt: teacher.put(prompt) for prompt in part}) for part in parts]
        return answerer.answer(Params(weights, {}), lanes)[teacher.key]

    return answers
