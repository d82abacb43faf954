"""Groups phases that the same programs train and measure at the same steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jaxorg.config import shaping
from jaxorg.llama.model import LlamaConfig
from jaxorg.planning.phases import Cohort, Phase
from jaxorg.planning.signature import ModelSignature, Signature, unrolls
from jaxorg.sweepfile.labels import PHASE_ORDER


def cohorts(phases: Sequence[Phase], shapes: Mapping[str, LlamaConfig]) -> tuple[Cohort, ...]:
    """Group phases that the same programs train and measure at the same steps, in the order of
    their kinds."""
    groups: dict[tuple[Any, ...], list[Phase]] = {}
    for phase in phases:
        model = _model(shapes[phase.config.base.model], phase)
        key = (model, _signature(phase, model), _course(phase))
        groups.setdefault(key, []).append(phase)
    found = [
        _cohort(model, signature, members) for (model, signature, _), members in groups.items()
    ]
    return tuple(sorted(found, key=lambda cohort: PHASE_ORDER.index(cohort.kind)))


def _model(config: LlamaConfig, phase: Phase) -> ModelSignature:
    """What shapes a phase's model; of adapters that may be padded, not the rank."""
    base, unroll = phase.config.base, unrolls(config)
    lora = phase.lora.signature() if phase.lora else None
    if lora and phase.training and phase.training.pads:
        lora = replace(lora, rank=0)
    return ModelSignature(config, lora, unroll=unroll, **shaping(base))


def _signature(phase: Phase, model: ModelSignature) -> Signature | None:
    """What shapes a phase's training program: the fields that are marked so. Phases are grouped by
    it."""
    training = phase.training
    if training is None or not phase.changes:
        return None
    recipe = phase.recipe
    own = {**recipe.signature(), "swept": tuple(recipe.swept())} if recipe else {}
    return Signature(model, **shaping(phase.config), **shaping(training), **own)


def _course(phase: Phase) -> tuple[Any, ...]:
    """What phases of one program must share to go side by side: when they are measured and asked,
    and in which tokens. Those that continue adapters share more than those that begin some."""
    config, rounds = phase.config, phase.in_rounds
    start = phase.lora.start if phase.lora else None
    others = phase.answered_by is not None
    answers = (config.prompts.new_tokens, others) if phase.on_policy or others or rounds else None
    turns = (rounds.rounds, rounds.temperature) if rounds else None
    tokens = (config.base.model, config.base.chat_format, config.length)
    triggered = phase.behaviour is not None  # who has one is asked with its trigger, too
    return phase.kind, phase.steps, start, config.evaluate, tokens, triggered, answers, turns


def _cohort(model: ModelSignature, signature: Signature | None, phases: Sequence[Phase]) -> Cohort:
    """Phases side by side: adapters as large as the largest, and one base where all have one."""
    if model.lora:
        one_base = len({phase.stands_on for phase in phases}) == 1
        rank = max(phase.lora.rank for phase in phases if phase.lora)
        model = replace(model, lora=replace(model.lora, rank=rank), shared_frozen=one_base)
    signature = replace(signature, model=model) if signature else None
    return Cohort(phases[0].kind, model, signature, tuple(phases))
