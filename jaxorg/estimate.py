"""What a plan will need, before anything runs; no JAX device is touched."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxorg import optimizers
from jaxorg.engine import step as one
from jaxorg.plan import Cohort, Phase, Plan, evaluation_steps

# Sustained training speed that time estimates assume. The CPU figure was measured with the
# shipped model on 2 cores (docs/performance.md); accelerators get no estimate.
CPU_FLOPS_A_CORE = 80e9
PROBES_A_PROMPT = 7  # completions that the evaluators score for one prompt, roughly


def memory(cohort: Cohort) -> int:
    """Bytes that one run of a cohort holds on a device: weights, gradients, optimizer state."""
    _, trainable, frozen = one.abstract_model(cohort.model)
    if cohort.static is None:
        return _bytes(trainable) + _bytes(frozen)
    static = cohort.static
    hyper = dict.fromkeys(optimizers.FAMILIES[static.optimizer].defaults, 0.0)
    state = jax.eval_shape(lambda p: one.initial(static, hyper, p), trainable)
    return _bytes(state) + _bytes(trainable) + _bytes(frozen)


def disk(plan: Plan) -> int:
    """Bytes of the weights that a sweep stores."""
    sizes = {cohort.model.config: _parameters(cohort) for cohort in plan.cohorts}
    return sum(
        4 * sizes[cohort.model.config] * len(cohort.phases)
        for cohort in plan.cohorts
        if cohort.steps
    )


def duration(plan: Plan, cores: int) -> str:
    """How long a sweep takes on a CPU, in words that state the assumption."""
    flops = sum(_flops(cohort) for cohort in plan.cohorts)
    seconds = flops / (cores * CPU_FLOPS_A_CORE)
    minutes = math.ceil(seconds / 60)
    speed = CPU_FLOPS_A_CORE / 1e9
    return f"about {minutes} min on {cores} CPU cores, at {speed:.0f} GFLOP/s a core"


def _flops(cohort: Cohort) -> float:
    """Training takes 6 operations a parameter and token, measuring 2."""
    trained = 6 * len(cohort.phases) * cohort.steps * cohort.tokens_a_step
    measured = 2 * sum(_measured_tokens(phase) for phase in cohort.phases)
    return float(_parameters(cohort) * (trained + measured))


def _measured_tokens(phase: Phase) -> int:
    evaluation, length = phase.config.evaluate, phase.config.length
    before_last = len(evaluation_steps(phase)) - 1
    prompts = before_last * evaluation.prompts + evaluation.final_prompts
    generated = 4 * evaluation.generated * evaluation.new_tokens
    return prompts * PROBES_A_PROMPT * length + generated


def _parameters(cohort: Cohort) -> int:
    _, trainable, frozen = one.abstract_model(cohort.model)
    leaves = jax.tree.leaves(frozen if cohort.model.lora else trainable)
    return sum(math.prod(leaf.shape) for leaf in leaves)


def _bytes(tree: one.Tree) -> int:
    return sum(math.prod(x.shape) * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))
