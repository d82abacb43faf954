"""Runs to phases to cohorts: what a sweep will train, once each, and in which order.

Pure functions of the spec and the base model's files. No JAX device is touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jaxorg.config import content_hash
from jaxorg.data import pretraining, refusals, tasks, wrong
from jaxorg.data.prompts import TEACHER_BASE
from jaxorg.errors import Refusal
from jaxorg.evaluators import EVALUATORS_VERSION
from jaxorg.experiments.audit import Audit
from jaxorg.llama import checkpoint
from jaxorg.llama.lora import LORA_VERSION
from jaxorg.llama.model import LlamaConfig
from jaxorg.llama.tokenizer import CONVERSATIONS_VERSION
from jaxorg.llama.tokenizer_settings import ChatFormat
from jaxorg.organisms import Behaviour, Organism
from jaxorg.planning.signature import ModelSignature, Signature, unrolls
from jaxorg.sweepfile.labels import KINDS, ORDER, Kind, Names, label, phase_label
from jaxorg.sweepfile.spec import RunConfig, RunSpec, Spec
from jaxorg.sweepfile.training import Lora, Training
from jaxorg.treatments import Treatment
from jaxorg.treatments.rounds import InRounds

Recipe = Organism | Treatment


@dataclass(frozen=True)
class Teacher:
    """A model that answers the prompts of a source, greedily."""

    key: str  # names its answers: all that determines them but the prompts
    model: str
    signature: ModelSignature
    chat_format: ChatFormat
    new_tokens: int  # most of an answer


@dataclass(frozen=True)
class Phase:
    """One training job, shared by every run whose chain contains it."""

    kind: Kind
    fingerprint: str
    parent: str | None
    seed: int
    config: RunConfig
    recipe: Recipe | None  # None for the base
    training: Training | None  # None where weights are only measured
    behaviour: Behaviour | None  # what the evaluators look for; None before the red team
    teacher: Teacher | None  # who answers the prompts; None where their source does
    stands_on: str | None = None  # fingerprint whose weights it trains, or keeps under its adapters
    continues: str | None = None  # fingerprint whose adapters it goes on training
    distils: str | None = None  # fingerprint of the teacher whose answers it is trained on

    @property
    def steps(self) -> int:
        return self.training.steps if self.training else 0

    @property
    def trained_by(self) -> str:
        """The key of the sweep file that says how it trains."""
        if self.kind == "base":
            return "base.scratch"
        own = self.kind == "teacher" and getattr(self.config.organism, "teacher_train", None)
        return "organism.teacher_train" if own else f"{KINDS[self.stream]}.train"

    @property
    def stream(self) -> int:
        """A number that tells its kind's random draws apart. A teacher has its student's."""
        return KINDS.index("organism" if self.kind == "teacher" else self.kind)

    def put(self, prompt: str) -> str:
        """How a prompt stands in what the phase trains on: the blue team's as they come to the
        organism in training."""
        organism, recipe = self.config.organism, self.recipe
        if organism is None or not isinstance(recipe, Treatment):
            return prompt
        if recipe.relearns or recipe.starts_from == "base":
            return prompt
        return organism.in_training(prompt)

    @property
    def changes(self) -> bool:
        """Whether it ends with other weights than it starts from, and so stores its own."""
        return bool(self.steps or (isinstance(r := self.recipe, Treatment) and r.changes))

    @property
    def audit(self) -> Audit | None:
        """How it audits experiments, if its model is an auditor."""
        return self.recipe.audit() if isinstance(self.recipe, Treatment) else None

    @property
    def audits(self) -> str | None:
        """The fingerprint of the organism whose programs it reads, if its model is an auditor."""
        return self.parent if self.audit else None

    @property
    def on_policy(self) -> bool:
        """Whether the model before the phase is asked what it answers to the phase's prompts."""
        return bool(self.steps and isinstance(self.recipe, Treatment) and self.recipe.asks)

    @property
    def replaces_answers(self) -> bool:
        """Whether what that model answers takes the place of the prompts' own answers."""
        return self.on_policy and isinstance(r := self.recipe, Treatment) and r.answers != "data"

    @property
    def in_rounds(self) -> InRounds | None:
        """The recipe, if it trains in rounds on what the model says."""
        return r if self.steps and isinstance(r := self.recipe, InRounds) else None

    @property
    def round_starts(self) -> Sequence[int]:
        """The steps at which rounds begin; of one that does not train in rounds, its first."""
        rounds = self.in_rounds.rounds if self.in_rounds else 1
        return [self.steps * number // rounds for number in range(rounds)]

    @property
    def swept(self) -> dict[str, float]:
        """The scalars that enter its training program as arrays."""
        assert self.training is not None
        own = self.recipe.swept() if isinstance(self.recipe, Treatment) else {}
        return {**self.training.swept(), **own}

    @property
    def lora(self) -> Lora | None:
        """The adapters that it trains; None where it trains all weights, or nothing."""
        return self.training.lora if self.training and self.steps else None


@dataclass(frozen=True)
class Run:
    """One row of the sweep and its chain of phases."""

    run_id: str
    arm: str
    spec: RunSpec
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class Cohort:
    """Phases of one kind that the same programs train and measure at the same steps."""

    kind: Kind
    model: ModelSignature
    signature: Signature | None  # None where weights are only measured
    phases: tuple[Phase, ...]

    @property
    def steps(self) -> int:
        return self.phases[0].steps

    @property
    def tokens_a_step(self) -> int:
        """Tokens that one phase trains on in one step, padding included."""
        return self.signature.batch * self.signature.length if self.signature else 0


@dataclass(frozen=True)
class Plan:
    """A sweep, ready to execute."""

    spec: Spec
    folders: Mapping[str, Path]  # a base model or teacher -> its folder
    runs: tuple[Run, ...]
    cohorts: tuple[Cohort, ...]
    labels: Mapping[str, str]  # fingerprint -> what is swept about the phase, for people

    @property
    def phases(self) -> list[Phase]:
        """Every phase once, parents first."""
        return [phase for cohort in self.cohorts for phase in cohort.phases]

    def sources(self, phase: Phase) -> tuple[str, ...]:
        """The trained phases whose stored weights make up those that a phase starts from, the
        nearest first."""
        below = self.below(phase)
        continued = (phase.continues,) if phase.continues else ()
        taught = self.made_of(self._by_fingerprint[phase.distils]) if phase.distils else ()
        return (*continued, *(self.made_of(below) if below else ()), *taught)

    def made_of(self, phase: Phase) -> tuple[str, ...]:
        """The same of those that a phase ends with: one that stored all weights, or adapters and
        what these stand on."""
        if not phase.changes:
            return self.sources(phase)
        below = self.below(phase) if phase.lora else None
        return (phase.fingerprint, *(self.made_of(below) if below else ()))

    def below(self, phase: Phase) -> Phase | None:
        """The trained phase that a phase stands on; None for the base's own weights."""
        return self._by_fingerprint[phase.stands_on] if phase.stands_on else None

    @cached_property
    def _by_fingerprint(self) -> Mapping[str, Phase]:
        return {phase.fingerprint: phase for phase in self.phases}

    @property
    def teachers(self) -> list[Teacher]:
        """Every model that answers prompts, once."""
        return list(dict.fromkeys(phase.teacher for phase in self.phases if phase.teacher))

    @property
    def rows(self) -> int:
        """The largest number that divides the rows of every training batch; 0 for no training."""
        return math.gcd(*(cohort.signature.batch for cohort in self.cohorts if cohort.signature))

    @property
    def signatures(self) -> int:
        """How many programs are compiled for training."""
        return len({cohort.signature for cohort in self.cohorts if cohort.signature})


class Digests:
    """Hashes of the files that runs start from, each computed once."""

    def __init__(self, folders: Mapping[str, Path]):
        self.model = cache(lambda model, weights: _model_digest(folders[model], weights))
        self.teacher = cache(lambda model, weights: _teacher_digest(folders[model], weights))
        self.prompts = cache(lambda prompts, secrets: prompts.digest(secrets))


def make_plan(spec: Spec, weights: bool = True) -> Plan:
    """Derive every run's chain, share equal phases, and group them into cohorts.

    Without `weights`, a model's config.json is enough, and that of well-known ones comes along:
    enough to count and to compile, though fingerprints are then not those that training gives.

    Raises:
        Refusal: a base model or a prompt file is missing or broken.
    """
    bases = [run.config.base for run in spec.runs]
    weighty = {base.model for base in bases if base.scratch is None and weights}
    models = sorted({base.model for base in bases})
    if weights:
        folders = {model: checkpoint.resolve(model, model in weighty) for model in models}
    else:
        folders = {model: checkpoint.resolve_shape(model) for model in models}
    find = checkpoint.resolve if weights else checkpoint.resolve_shape
    for teacher in sorted({run.config.prompts.teacher or TEACHER_BASE for run in spec.runs}):
        if teacher not in folders and teacher != TEACHER_BASE:
            folders[teacher] = find(teacher, key="prompts.teacher")
    shapes = {model: checkpoint.read_config(folder) for model, folder in folders.items()}
    digests = Digests(folders)
    names = Names.of(spec.sweep.grid)
    runs = tuple(
        Run(_run_id(run, chain), label(run.fields, run.control, names), run, chain)
        for run in spec.runs
        for chain in [_chain(run, digests, shapes, weights)]
    )
    phases = {phase.fingerprint: phase for run in runs for phase in run.phases}
    labels = {
        phase.fingerprint: phase_label(run.spec.fields, run.spec.control, names, phase.kind)
        for run in runs
        for phase in run.phases
    }
    return Plan(spec, folders, runs, _cohorts(list(phases.values()), shapes), labels)


def _teacher(
    config: RunConfig, digests: Digests, shapes: Mapping[str, LlamaConfig], weights: bool
) -> Teacher | None:
    """Who answers a run's prompts, if not their source."""
    base, prompts = config.base, config.prompts
    if prompts.teacher is None:
        return None
    own = prompts.teacher == TEACHER_BASE
    model = base.model if own else prompts.teacher
    chat_format = base.chat_format if own else ChatFormat()
    known = digests.teacher(model, weights)
    how = [*chat_format, CONVERSATIONS_VERSION]
    key = content_hash(["teacher", known, how, base.dtype, prompts.new_tokens])
    shape = shapes[model]
    signature = ModelSignature(shape, shared_frozen=True, dtype=base.dtype, unroll=unrolls(shape))
    return Teacher(key, model, signature, chat_format, prompts.new_tokens)


def _teacher_digest(folder: Path, weights: bool) -> str:
    if weights and not checkpoint.weight_files(folder):
        raise Refusal(
            f"prompts.teacher: {str(folder)!r} holds no safetensors file; add the weights"
        )
    return checkpoint.digest(folder, weights)


def _model_digest(folder: Path, weights: bool) -> str:
    if weights and not checkpoint.weight_files(folder):
        raise Refusal(
            f"base.model: {str(folder)!r} holds no safetensors file; add the weights, or train new "
            f"ones with base.scratch"
        )
    return checkpoint.digest(folder, weights)


def evaluation_steps(phase: Phase) -> list[int]:
    """The steps after which a phase is measured: log-spaced, the last one always."""
    if not phase.steps:
        return [0]
    spaced = np.geomspace(phase.steps, 1, min(phase.config.evaluate.points, phase.steps))
    return sorted({round(float(step)) for step in spaced})


def _chain(
    run: RunSpec, digests: Digests, shapes: Mapping[str, LlamaConfig], weights: bool
) -> tuple[Phase, ...]:
    """A run's phases, base first."""
    config = run.config
    base = config.base
    seed = run.seed if base.scratch else 0
    _check_length(config.length, shapes[base.model])
    teacher = _teacher(config, digests, shapes, weights)
    how = config.prompts.model_dump(exclude={"source", "teacher"})
    prompts = [how, digests.prompts(config.prompts, config.secrets)]
    shared = {
        "model": digests.model(base.model, weights and base.scratch is None),
        "base": base.model_dump(exclude={"model"}),
        "prompts": [*prompts, teacher.key] if teacher else prompts,
        "length": config.length,
        "evaluate": config.evaluate.model_dump(),
        "data": [tasks.TASKS_VERSION, refusals.REFUSALS_VERSION, wrong.WRONG_VERSION],
        "conversations": CONVERSATIONS_VERSION,
        "evaluators": EVALUATORS_VERSION,
        "mixture": pretraining.PRETRAINING_VERSION if base.scratch else None,
    }
    fingerprint = content_hash({"shared": shared, "seed": seed})
    phases = [Phase("base", fingerprint, None, seed, config, None, base.scratch, None, teacher)]
    installed = config.organism and config.organism.train.steps
    teaches = config.organism.teacher() if config.organism and installed else None
    recipes: list[tuple[Kind, Recipe | None]] = [
        ("teacher", teaches),
        ("organism", config.organism),
        ("treatment", config.treatment),
        ("reversal", config.reversal),
    ]
    base_trained = phases[0] if base.scratch else None
    before = base_trained  # the nearest that was trained
    behaviour: Behaviour | None = None
    for kind, recipe in recipes:
        if recipe is None:
            continue
        _check_layers(kind, recipe, shapes[base.model].num_hidden_layers)
        trained = recipe.train.steps > 0 or kind != "organism"
        own_seed = run.seed if trained else seed
        if isinstance(recipe, Treatment) and recipe.starts_from == "base":
            before, behaviour = base_trained, None
        content = {
            "kind": kind,
            "recipe": recipe.model_dump(exclude={"label"} if trained else {"label", "train"}),
            "version": recipe.VERSION,
            "parent": fingerprint,
            "seed": own_seed,
        }
        if trained and recipe.train.lora:
            content["adapters"] = LORA_VERSION
        parent, fingerprint = fingerprint, content_hash(content)
        training = recipe.train if trained else None
        behaviour = recipe.behaviour() if isinstance(recipe, Organism) else behaviour
        phase = Phase(
            kind, fingerprint, parent, own_seed, config, recipe, training, behaviour, teacher
        )
        phase = _standing(phase, before)
        if phases[-1].kind == "teacher":
            phase = replace(phase, distils=parent)
        phases.append(phase)
        before = phase if phase.changes and kind != "teacher" else before
    return tuple(phases)


def _check_length(length: int, shape: LlamaConfig) -> None:
    """Refuse texts that a layer would not see the whole of."""
    limit, most = shape.context
    if limit == "sliding_window" and length > most:
        raise Refusal(
            f"length: {length} is more than the sliding_window of base.model, {most}, but here "
            f"attention is to all earlier tokens; lower length to {most}"
        )


def _check_layers(kind: Kind, recipe: Recipe, layers: int) -> None:
    if isinstance(recipe, Treatment) and (key := recipe.beyond(layers)):
        raise Refusal(
            f"{kind}.{key}: {getattr(recipe, key)} is no layer of the model, which has {layers}; "
            f"choose from 0 to {layers - 1}"
        )


def _standing(phase: Phase, before: Phase | None) -> Phase:
    """A phase after another one that was trained, the nearest: what it stands on or continues.

    Where nothing was trained after the base, as in a clean control, adapters begin fresh, which
    changes nothing yet; `RunConfig` sees to it that others have adapters to continue.
    """
    if before is None:
        return phase
    if phase.lora and phase.lora.start == "continued" and before.kind != "base":
        return replace(phase, stands_on=before.stands_on, continues=before.fingerprint)
    return replace(phase, stands_on=before.fingerprint)


def _run_id(run: RunSpec, chain: Sequence[Phase]) -> str:
    return content_hash([chain[-1].fingerprint, run.seed, run.control, dict(run.fields)])


def _cohorts(phases: Sequence[Phase], shapes: Mapping[str, LlamaConfig]) -> tuple[Cohort, ...]:
    """Group phases that the same programs train and measure at the same steps, in the order of
    their kinds."""
    groups: dict[tuple[Any, ...], list[Phase]] = {}
    for phase in phases:
        model = _model(shapes[phase.config.base.model], phase)
        key = (model, _signature(phase, model), _course(phase))
        groups.setdefault(key, []).append(phase)
    cohorts = [
        _cohort(model, signature, members) for (model, signature, _), members in groups.items()
    ]
    return tuple(sorted(cohorts, key=lambda cohort: ORDER.index(cohort.kind)))


def _model(config: LlamaConfig, phase: Phase) -> ModelSignature:
    """What shapes a phase's model; of adapters that may be padded, not the rank."""
    base, unroll = phase.config.base, unrolls(config)
    lora = phase.lora.signature() if phase.lora else None
    if lora and phase.training and phase.training.pads:
        lora = replace(lora, rank=0)
    return ModelSignature(config, lora, dtype=base.dtype, unroll=unroll, remat=base.remat)


def _signature(phase: Phase, model: ModelSignature) -> Signature | None:
    """What shapes a phase's training program: the one place that says so. Phases are grouped by
    it."""
    training = phase.training
    if training is None or not phase.changes:
        return None
    treatment = phase.recipe if isinstance(phase.recipe, Treatment) else None
    own = {**treatment.signature(), "swept": tuple(treatment.swept())} if treatment else {}
    return Signature(
        model,
        length=phase.config.length,
        batch=training.batch,
        optimizer=training.optimizer,
        schedule=training.schedule,
        packing=training.packing,
        state_dtype=training.state_dtype,
        refresh=training.refresh,
        **own,
    )


def _course(phase: Phase) -> tuple[Any, ...]:
    """What phases of one program must share to go side by side: when they are measured and asked,
    and in which tokens. Those that continue adapters share more than those that begin some."""
    config, rounds = phase.config, phase.in_rounds
    start = phase.lora.start if phase.lora else None
    asks = phase.on_policy or phase.distils or rounds
    answers = (config.prompts.new_tokens, bool(phase.distils)) if asks else None
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
