"""What a plan will need, before anything runs; no JAX device is touched."""

from __future__ import annotations

import math
import shutil
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxorg.engine.params import Tree, abstract_model
from jaxorg.engine.run.inputs import Inputs
from jaxorg.engine.step import abstract_state
from jaxorg.errors import Refusal
from jaxorg.evaluators import Evaluator
from jaxorg.evaluators.base import OfActivations, OfAnswers, UnderNoise
from jaxorg.organisms.distilled import TRIES
from jaxorg.planning.measurements import ANSWERS
from jaxorg.planning.phases import Cohort, Phase, Teacher, evaluation_steps
from jaxorg.planning.plan import Plan
from jaxorg.planning.signature import Signature
from jaxorg.scorers.judge import Estimate, Judge
from jaxorg.storage.layout import Keep

# Sustained training speed that time estimates assume. The CPU figure was measured with the
# built-in model on 2 cores (docs/performance.md); accelerators get no estimate.
CPU_FLOPS_A_CORE = 80e9
RECORD_BYTES = 200_000  # what was measured in a phase, in its record and in the tables, roughly
ANSWER_BYTES = 8  # of an answer and its prompt, a token of `length`, roughly
ROW_BYTES = 12  # of a round's row, a token: its number, and log-probabilities of two models
SAID_BYTES = 12  # of an answer that is measured, a token: its text and its number, roughly
CHARACTERS_A_TOKEN = 5  # of an answer, roughly
ROWS_A_PROMPT = 4  # whole rows that the evaluators take for one prompt, roughly


def memory(cohort: Cohort) -> int:
    """Bytes that one run of a cohort holds: weights, gradients, optimizer state."""
    _, (trainable, frozen) = abstract_model(cohort.model)
    beside = _bytes(frozen) * jnp.dtype(cohort.model.dtype).itemsize // 4  # kept as it is used
    if cohort.signature is None:
        return _bytes(trainable) + beside
    state = _state(replace(cohort.signature, length=1, batch=1))  # which do not matter here
    return state + _bytes(trainable) + beside


def largest(plan: Plan) -> int:
    """Most bytes that one run of a plan holds, or a teacher."""
    return max([*map(memory, plan.cohorts), *map(_weights, plan.teachers)])


def _weights(teacher: Teacher) -> int:
    """Bytes of a teacher's weights."""
    signature = teacher.signature
    weights = abstract_model(signature)[1].trainable
    return _bytes(weights) * jnp.dtype(signature.dtype).itemsize // 4


@cache
def _state(signature: Signature) -> int:
    """Bytes of what a training step changes."""
    return _bytes(abstract_state(signature))


def disk(plan: Plan, keep: Keep, done: Collection[str] = (), lanes: int | None = None) -> int:
    """Most bytes that a sweep will have added to a disk at any time, large datasets left out.

    Args:
        plan: the sweep.
        keep: which weights are stored.
        done: fingerprints whose results are there already.
        lanes: the most phases that are trained side by side; None where that may be any number.
    """
    size = {p.fingerprint: _stored(c, p, keep) for c in plan.cohorts for p in c.phases}
    written: set[str] = set()
    most = records = 0
    for number, cohort in enumerate(plan.cohorts):
        due = [phase for phase in cohort.phases if phase.fingerprint not in done]
        new = {phase.fingerprint for phase in due}
        records += RECORD_BYTES * len(new) + sum(map(_answers, due))
        records += sum(_said(plan, phase) for phase in due)
        written |= new
        if keep == "none":  # organisms' weights go when their treatments are done
            later = {p.fingerprint: p for c in plan.cohorts[number:] for p in c.phases}
            written &= {s for phase in later.values() for s in plan.sources(phase)}
        # While one state is written, the one before is still there.
        states = sorted((_kept(cohort, phase) for phase in due), reverse=True)[:lanes]
        kept = sum(states) + max(states, default=0)
        most = max(most, records + sum(size[fingerprint] for fingerprint in written) + kept)
    return most


def _kept(cohort: Cohort, phase: Phase) -> int:
    """Bytes of what is kept of a phase for a restart while it is trained: its state, and rows of
    rounds."""
    if cohort.signature is None or not phase.steps or phase.training is None:
        return 0
    model = replace(cohort.model, lora=phase.lora.signature() if phase.lora else None)  # not padded
    state = _state(replace(cohort.signature, model=model, length=1, batch=1))
    if phase.in_rounds is None:
        return state
    rows = phase.in_rounds.answers_for(phase.training.examples)
    return state + rows * phase.config.length * ROW_BYTES


def _answers(phase: Phase) -> int:
    """Bytes of the answers that a phase is trained on, where models give them."""
    asked = phase.on_policy or phase.answered_by or (phase.teachers and not phase.in_rounds)
    if not asked or phase.training is None:
        return 0
    tries = TRIES if phase.distils else 1
    return phase.training.examples * tries * phase.config.length * ANSWER_BYTES


def _stored(cohort: Cohort, phase: Phase, keep: Keep) -> int:
    """Bytes of the weights that a phase stores."""
    if not phase.changes:
        return 0
    copies = len(evaluation_steps(phase)) if keep == "log" else 1
    own = phase.lora.signature() if phase.lora else None  # not padded
    return copies * _bytes(abstract_model(replace(cohort.model, lora=own))[1].trainable)


def refuse_too_large(
    plan: Plan,
    keep: Keep,
    place: Path,
    done: Collection[str],
    run_memory: int,
    lanes: int | None,
) -> None:
    """Make sure that disk and devices have room for a sweep.

    Args:
        plan: the sweep.
        keep: which weights are stored.
        place: the results folder, which need not be there.
        done: fingerprints whose results are there already.
        run_memory: bytes of all devices that one run is spread over.
        lanes: as for `disk`.

    Raises:
        Refusal: one of them has not.
    """
    there = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
    free, needed = shutil.disk_usage(there).free, disk(plan, keep, done, lanes)
    if needed > free:
        raise Refusal(
            f"--out: {place} needs about {as_bytes(needed)}, and {as_bytes(free)} are free; choose "
            f"another disk, or --keep none ({as_bytes(disk(plan, 'none', done, lanes))})"
        )
    most = largest(plan)
    if most > run_memory:
        raise Refusal(
            f"base.model: one run takes about {as_bytes(most)}, and a device has "
            f"{as_bytes(run_memory)}; choose a smaller model, LoRA or another --mesh"
        )


def as_bytes(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(plan: Plan, cores: int) -> str:
    """How long a sweep takes on a CPU, in words that state the assumption."""
    flops = sum(_flops(cohort) for cohort in plan.cohorts) + _teaching_flops(plan)
    seconds = flops / (cores * CPU_FLOPS_A_CORE)
    speed = CPU_FLOPS_A_CORE / 1e9
    return f"about {as_time(seconds)} on {cores} CPU cores, at {speed:.0f} GFLOP/s a core"


def as_time(seconds: float) -> str:
    """A long time for people."""
    for unit, length, most in (("min", 60, 120), ("h", 3600, 48)):
        if seconds <= most * length:
            return f"{math.ceil(seconds / length)} {unit}"
    return f"{math.ceil(seconds / 86_400):,} days"


def _said(plan: Plan, phase: Phase) -> int:
    """What a phase's stored answers take, with their prompts and tokens."""
    evaluate, steps = phase.config.evaluate, plan.measurements(phase.fingerprint)
    tokens = evaluate.answers.new_tokens + phase.config.length
    answered = (
        evaluate.answered(s == max(steps)) for s, names in steps.items() if ANSWERS in names
    )
    return 4 * SAID_BYTES * tokens * sum(answered)  # both conditions, greedily and sampled


def _flops(cohort: Cohort) -> float:
    """Training takes 6 operations a parameter and token, and 4 for each step of ascent within a
    step; measuring takes 2."""
    ascent = cohort.signature.inner_steps if cohort.signature else 0
    trained = (6 + 4 * ascent) * len(cohort.phases) * cohort.steps * cohort.tokens_a_step
    return float(_parameters(cohort) * trained + measuring_flops(cohort))


def measuring_flops(cohort: Cohort) -> float:
    """Floating-point operations to measure all phases of a cohort, from their start to their end:
    2 a weight and token."""
    return float(2 * _parameters(cohort) * sum(map(_measured_tokens, cohort.phases)))


def _teaching_flops(plan: Plan) -> float:
    """What teachers take to answer the prompts that phases train on."""
    asked = {
        (teacher, p.kind, p.seed, p.training.examples): p.config.length
        for p in plan.phases
        for teacher in p.teachers
        if p.training and p.draws and not p.replaces_answers
    }
    return sum(
        2.0 * _count(abstract_model(teacher.signature)[1].trainable) * examples * length
        for (teacher, _, _, examples), length in asked.items()
    )


def _measured_tokens(phase: Phase) -> int:
    evaluation, length = phase.config.evaluate, phase.config.length
    steps = evaluation_steps(phase)
    prompts = (len(steps) - 1) * evaluation.prompts + evaluation.final_prompts
    generated = inside = 0
    for number, step in enumerate(steps):
        due = evaluation.due(phase.subject, number == 0, step == steps[-1]).values()
        if any(isinstance(evaluator, OfAnswers) for evaluator in due):
            asked = evaluation.answered(step == steps[-1])  # greedily and sampled, both conditions
            generated += 4 * asked * evaluation.answers.new_tokens
        inside += sum(map(_conversations_inside, due))
    if (phase.on_policy or phase.answered_by) and phase.training:
        generated += phase.training.examples * length
    if phase.in_rounds and phase.training:  # an answer is generated, and scored about twice
        generated += 3 * phase.in_rounds.answers_for(phase.training.examples) * length
    return (prompts * ROWS_A_PROMPT + inside) * length + generated


def _conversations_inside(evaluator: Evaluator) -> int:
    """The conversations that are looked at, or scored, by what looks inside a model."""
    prompts = evaluator.prompts or 0
    if isinstance(evaluator, UnderNoise):  # attack and answer, in both conditions
        return 4 * prompts * (len(evaluator.activations) + len(evaluator.weights))
    return 2 * prompts if isinstance(evaluator, OfActivations) else 0


def judging(plan: Plan, inputs: Inputs) -> Mapping[Judge, Estimate]:
    """What the judges of a plan would be asked, about, and at most."""
    asked: dict[Judge, list[int]] = defaultdict(list)
    for phase in plan.phases:
        if not isinstance(judge := phase.subject.scorer, Judge):
            continue
        evaluate, steps = phase.config.evaluate, evaluation_steps(phase)
        prompts = max(len(i.prompt) for i in inputs.prepared(phase, True, longest=True).view.items)
        answer = prompts + CHARACTERS_A_TOKEN * evaluate.answers.new_tokens
        conditions = 1 if phase.behaviour is None else 2
        for step, names in plan.measurements(phase.fingerprint).items():
            if "scored" in names:
                asked[judge] += [answer] * conditions * evaluate.answered(step == steps[-1])
    return {judge: judge.at_most(len(found), sum(found)) for judge, found in asked.items()}


def step_flops(cohort: Cohort) -> float:
    """Floating-point operations of one training step of one run: 2 a weight and token forward, as
    many to pass gradients back, as many again for the gradients of what is trained, and another
    forward pass where activations are computed again. A step of ascent passes forth and back."""
    trained = _count(abstract_model(cohort.model)[1].trainable)
    passes = 3 if cohort.model.remat else 2
    passes *= 1 + (cohort.signature.inner_steps if cohort.signature else 0)
    return float(2 * cohort.tokens_a_step * (passes * _parameters(cohort) + trained))


def _parameters(cohort: Cohort) -> int:
    _, params = abstract_model(cohort.model)
    return _count(params.frozen if cohort.model.lora else params.trainable)


def _count(tree: Tree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _bytes(tree: Tree) -> int:
    return sum(math.prod(x.shape) * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))
