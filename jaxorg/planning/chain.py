"""A run's chain of phases, each named by a hash of all that determines its result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from jaxorg import optimizers
from jaxorg.config import content_hash
from jaxorg.data import items, pretraining, refusals, tasks, wrong
from jaxorg.data.prompts import TEACHER_BASE
from jaxorg.discovery import version_of
from jaxorg.errors import Refusal
from jaxorg.llama import checkpoint
from jaxorg.llama.lora import LORA_VERSION
from jaxorg.llama.model import LlamaConfig
from jaxorg.llama.tokenizer import CONVERSATIONS_VERSION
from jaxorg.llama.tokenizer_settings import ChatFormat
from jaxorg.organisms.distilled import DISTILLED_VERSION
from jaxorg.organisms.recipe import Recipe
from jaxorg.planning.phases import Phase, Teacher, asked_scorer
from jaxorg.planning.signature import ModelSignature, unrolls
from jaxorg.sweepfile.labels import Kind
from jaxorg.sweepfile.run_config import RunConfig
from jaxorg.sweepfile.spec import RunSpec
from jaxorg.sweepfile.training import Training

Answering = Callable[[str, str, str], Teacher]
"""Makes a teacher of the setting that names a model, that name, and a request or ""."""


class Digests:
    """Hashes of the files that runs start from, each computed once."""

    def __init__(self, folders: Mapping[str, Path]):
        self.model = cache(lambda model, weights: _model_digest(folders[model], weights))
        self.teacher = cache(lambda model, *how: _teacher_digest(folders[model], *how))
        self.prompts = cache(lambda prompts, secrets: prompts.digest(secrets))
        self.source = cache(lambda source: source.digest())


def chain_of(
    run: RunSpec, digests: Digests, shapes: Mapping[str, LlamaConfig], weights: bool
) -> tuple[Phase, ...]:
    """A run's phases, base first.

    Args:
        run: the run.
        digests: of the files that it starts from.
        shapes: each base model's and teacher's shape.
        weights: whether models' weights count, or their shapes alone.

    Raises:
        Refusal: a file is missing or broken, or the model cannot do what a recipe asks for.
    """
    config = run.own
    shape = shapes[config.base.model]
    _check_length(config.length, shape)
    answering = partial(_teacher, config, digests, shapes, weights)
    chain: tuple[Phase, ...] = (_base(run, digests, answering, weights),)
    for kind, recipe in recipes(config):
        _check_layers(kind, recipe, shape.num_hidden_layers)
        chain = (*chain, _next(chain, kind, recipe, run.seeds.of(kind), digests, answering))
    return chain


def _base(run: RunSpec, digests: Digests, answering: Answering, weights: bool) -> Phase:
    """The phase that every chain begins with; trained only where the base is new."""
    config, base = run.own, run.own.base
    named = config.prompts.teacher
    teacher = answering("prompts.teacher", named, "") if named else None
    how = config.prompts.model_dump(exclude={"source", "teacher", "scorer"})
    prompts = [how, digests.prompts(config.prompts, config.secrets)]
    content = {
        "model": digests.model(base.model, weights and base.scratch is None),
        "base": base.model_dump(exclude={"model"}),
        "prompts": [*prompts, teacher.key] if teacher else prompts,
        "length": config.length,
        "data": [tasks.TOY.version, refusals.REFUSALS_VERSION, wrong.WRONG_VERSION],
        "conversations": CONVERSATIONS_VERSION,
        "mixture": pretraining.PRETRAINING_VERSION if base.scratch else None,
        **(_code(base.scratch) if base.scratch else {}),
    }
    fingerprint = content_hash({"shared": content, "seed": run.seeds.base})
    return Phase(
        "base", fingerprint, None, run.seeds.base, config, None, base.scratch, None, teacher, None
    )


def recipes(config: RunConfig) -> Iterator[tuple[Kind, Recipe]]:
    """What follows the base, in order."""
    organism = config.organism
    if organism and organism.train.steps and (teacher := organism.teacher()):
        yield "teacher", teacher
    if organism:
        yield "organism", organism
    if config.treatment:
        yield "treatment", config.treatment
    if config.reversal:
        yield "reversal", config.reversal


def _next(
    chain: Sequence[Phase],
    kind: Kind,
    recipe: Recipe,
    seed: int,
    digests: Digests,
    answering: Answering,
) -> Phase:
    """The phase that a recipe adds to a chain. One that trains nothing has the base's seed."""
    base, parent = chain[0], chain[-1]
    trained = recipe.train.steps > 0 or kind != "organism"
    own_seed = seed if trained else base.seed
    said = recipe.model_dump(exclude={"label"} if trained else {"label", "train"})
    said |= {key: digests.source(source) for key, source in recipe.files().items()}
    named = recipe.supervisor
    supervisor = answering(f"{kind}.model", named, recipe.supervisor_request) if named else None
    content = {
        "kind": kind,
        "recipe": said | ({"model": supervisor.key} if supervisor else {}),
        "version": version_of(type(recipe)),
        "parent": parent.fingerprint,
        "seed": own_seed,
    }
    if trained:
        content |= _code(recipe.train)
    if scorer := asked_scorer(recipe, base.config.prompts.scorer):
        content |= {"scorer": scorer.identity}
    if kind in ("treatment", "reversal") and recipe.train.steps and not recipe.own_prompts:
        content |= {"blue": items.BLUE_VERSION}
    if parent.kind == "teacher":
        content |= {"distilled": DISTILLED_VERSION}
    from_base = recipe.starts_from == "base"
    below = [p for p in (chain[:1] if from_base else chain) if p.kind != "teacher"]
    before = [p for p in below if p.changes or p.brought]
    phase = Phase(
        kind,
        content_hash(content),
        parent.fingerprint,
        own_seed,
        base.config,
        recipe,
        recipe.train if trained else None,
        recipe.behaviour_after(parent.behaviour),
        base.teacher,
        supervisor,
        answered_by=_answered_by(chain, recipe),
    )
    if phase.brought:
        return replace(phase, stands_on=phase.fingerprint)
    return _standing(phase, before[-1]) if before else phase


def _answered_by(chain: Sequence[Phase], recipe: Recipe) -> str | None:
    """The phase of a chain whose model answers what a recipe trains on: the teacher right before,
    or the organism; None if none does."""
    if chain[-1].kind == "teacher":
        return chain[-1].fingerprint
    if not (recipe.asks_organism and recipe.train.steps):
        return None
    return next(phase.fingerprint for phase in chain if phase.kind == "organism")


def _code(training: Training) -> dict[str, Any]:
    """The versions of code that a phase is trained by, where they are not those from the start."""
    name = training.optimizer
    origin, version = optimizers.FAMILIES.origin(name), optimizers.FAMILIES[name].version
    adapters = {"adapters": LORA_VERSION} if training.lora else {}
    family = [version, *origin] if origin else version
    return adapters if family == 1 else {**adapters, "optimizer": family}


def _standing(phase: Phase, before: Phase) -> Phase:
    """A phase after another one that was trained, the nearest: what it stands on or continues.

    Where nothing was trained after the base, as in a clean control, adapters begin fresh, which
    changes nothing yet; `RunConfig` sees to it that others have adapters to continue.
    """
    if phase.lora and phase.lora.start == "continued" and before.kind != "base":
        return replace(phase, stands_on=before.stands_on, continues=before.fingerprint)
    return replace(phase, stands_on=before.fingerprint)


def _teacher(
    config: RunConfig,
    digests: Digests,
    shapes: Mapping[str, LlamaConfig],
    weights: bool,
    setting: str,
    named: str,
    request: str,
) -> Teacher:
    """The model that a setting names, to answer a run's prompts, behind a request if there is
    one."""
    base, new_tokens = config.base, config.prompts.new_tokens
    own = named == TEACHER_BASE
    model = base.model if own else named
    chat_format = base.chat_format if own else ChatFormat()
    known = digests.teacher(model, weights, setting)
    how = [*chat_format, CONVERSATIONS_VERSION]
    asked = ["teacher", known, how, base.dtype, new_tokens]
    key = content_hash([*asked, request] if request else asked)
    shape = shapes[model]
    signature = ModelSignature(shape, shared_frozen=True, dtype=base.dtype, unroll=unrolls(shape))
    return Teacher(key, setting, model, signature, chat_format, new_tokens, request)


def _teacher_digest(folder: Path, weights: bool, setting: str) -> str:
    if weights and not checkpoint.weight_files(folder):
        raise Refusal(f"{setting}: {str(folder)!r} holds no safetensors file; add the weights")
    return checkpoint.digest(folder, weights)


def _model_digest(folder: Path, weights: bool) -> str:
    if weights and not checkpoint.weight_files(folder):
        raise Refusal(
            f"base.model: {str(folder)!r} holds no safetensors file; add the weights, or train new "
            f"ones with base.scratch"
        )
    return checkpoint.digest(folder, weights)


def _check_length(length: int, shape: LlamaConfig) -> None:
    """Refuse texts that a layer would not see the whole of."""
    limit, most = shape.context
    if limit == "sliding_window" and length > most:
        raise Refusal(
            f"length: {length} is more than the sliding_window of base.model, {most}, but here "
            f"attention is to all earlier tokens; lower length to {most}"
        )


def _check_layers(kind: Kind, recipe: Recipe, layers: int) -> None:
    if key := recipe.beyond(layers):
        raise Refusal(
            f"{kind}.{key}: {getattr(recipe, key)} is no layer of the model, which has {layers}; "
            f"choose from 0 to {layers - 1}"
        )
