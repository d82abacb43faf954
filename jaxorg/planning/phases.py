"""The phases that runs are made of, the runs, and the cohorts that phases are trained in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from jaxorg.evaluators import Subject
from jaxorg.experiments.audit import Audit
from jaxorg.llama.brought import Brought
from jaxorg.llama.tokenizer_settings import ChatFormat
from jaxorg.organisms import Behaviour
from jaxorg.organisms.recipe import Recipe
from jaxorg.planning.signature import ModelSignature, Signature
from jaxorg.scorers import Scorer
from jaxorg.scorers.judge import Judge
from jaxorg.sweepfile.labels import PHASE_KINDS, Kind
from jaxorg.sweepfile.run_config import RunConfig
from jaxorg.sweepfile.spec import RunSpec
from jaxorg.sweepfile.training import Lora, Training
from jaxorg.treatments.rounds import InRounds


@dataclass(frozen=True)
class Teacher:
    """A model that answers the prompts of a source, greedily."""

    key: str  # names its answers: all that determines them but the prompts
    setting: str = field(compare=False)  # the key of the sweep file that names it
    model: str
    signature: ModelSignature
    chat_format: ChatFormat
    new_tokens: int  # most of an answer
    request: str = ""  # stands before each prompt that it answers

    def put(self, prompt: str) -> str:
        """What it is asked."""
        return f"{self.request}\n\n{prompt}" if self.request else prompt


def asked_scorer(recipe: Recipe | None, scorer: Scorer | None) -> Scorer | None:
    """The prompts' scorer, if a recipe asks it which answers are right while it trains: of those in
    rounds, or of another model's, which is noted. Nobody asks a judge by then."""
    if recipe is None or not recipe.train.steps or isinstance(scorer, Judge):
        return None
    asks = recipe.supervisor or (recipe.in_rounds and recipe.in_rounds.verifies)
    return scorer if asks else None


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
    teacher: Teacher | None  # who gives the prompts' right answers; None where their source does
    supervisor: Teacher | None  # who gives those that it trains on in their place, right or wrong
    # Fingerprint whose weights it trains, or keeps under its adapters; of what others trained, its
    # own.
    stands_on: str | None = None
    continues: str | None = None  # fingerprint whose adapters it goes on training
    # Fingerprint of another phase, whose model answers what it is trained on.
    answered_by: str | None = None

    @property
    def steps(self) -> int:
        """Optimizer steps that it takes; 0 where weights are only measured or changed."""
        return self.training.steps if self.training else 0

    @property
    def trained_by(self) -> str:
        """The key of the sweep file that says how it trains."""
        if self.kind == "base":
            return "base.scratch"
        own = self.kind == "teacher" and getattr(self.config.organism, "teacher_train", None)
        return "organism.teacher_train" if own else f"{PHASE_KINDS[self.stream]}.train"

    @property
    def stream(self) -> int:
        """A number that tells its kind's random draws apart. A teacher has its student's."""
        return PHASE_KINDS.index("organism" if self.kind == "teacher" else self.kind)

    def put(self, prompt: str) -> str:
        """How a prompt stands in what the phase trains on: the blue team's as they come to the
        organism in training."""
        return self.recipe.put(prompt, self.config.organism) if self.recipe else prompt

    @property
    def changes(self) -> bool:
        """Whether it ends with other weights than it starts from, and so stores its own."""
        return bool(self.steps or (self.recipe and self.recipe.changes))

    @property
    def brought(self) -> Brought | None:
        """Where its weights are read from, if others trained it: none of them are stored."""
        return self.recipe.brought if self.recipe else None

    @property
    def draws(self) -> bool:
        """Whether it trains on prompts of the source."""
        return bool(self.steps) and not (self.recipe and self.recipe.own_prompts)

    @property
    def blue(self) -> frozenset[str]:
        """The families of prompts that it trains on, if it is the blue team's and others are held
        out from it: a reversal's are its treatment's."""
        if self.kind not in ("treatment", "reversal"):
            return frozenset()
        return self.config.prompts.blue_families(self.seed)

    @property
    def teachers(self) -> list[Teacher]:
        """The models that answer its prompts."""
        return [each for each in (self.teacher, self.supervisor) if each]

    @property
    def asked_scorer(self) -> Scorer | None:
        """The scorer that its training asks, if any."""
        return asked_scorer(self.recipe, self.config.prompts.scorer)

    @property
    def audit(self) -> Audit | None:
        """How it audits experiments, if its model is an auditor."""
        return self.recipe.audit() if self.recipe else None

    @property
    def subject(self) -> Subject:
        """What evaluators need to know of it."""
        return Subject(self.behaviour, self.config.prompts.scorer, self.audit)

    @property
    def audits(self) -> str | None:
        """The fingerprint of the organism whose programs it reads, if its model is an auditor."""
        return self.parent if self.audit else None

    @property
    def on_policy(self) -> bool:
        """Whether the model before the phase is asked what it answers to the phase's prompts."""
        return bool(self.steps and self.recipe and self.recipe.asks)

    @property
    def distils(self) -> bool:
        """Whether it is trained on what is left of the samples of its teacher."""
        return self.kind == "organism" and self.answered_by is not None

    @property
    def hears(self) -> bool:
        """Whether the model before the phase, or the organism, is asked what it answers to the
        phase's prompts."""
        return self.on_policy or (self.answered_by is not None and not self.distils)

    @property
    def replaces_answers(self) -> bool:
        """Whether what that model answers takes the place of the prompts' own answers."""
        return bool(self.steps and self.recipe and self.recipe.replaces_answers)

    @property
    def in_rounds(self) -> InRounds | None:
        """The recipe, if it trains in rounds on what the model says."""
        return self.recipe.in_rounds if self.steps and self.recipe else None

    @property
    def round_starts(self) -> Sequence[int]:
        """The steps at which rounds begin; of one that does not train in rounds, its first."""
        rounds = self.in_rounds.rounds if self.in_rounds else 1
        return [self.steps * number // rounds for number in range(rounds)]

    @property
    def swept(self) -> dict[str, float]:
        """The scalars that enter its training program as arrays."""
        assert self.training is not None
        own = self.recipe.swept() if self.recipe else {}
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

    @property
    def blue(self) -> frozenset[str]:
        """The families of prompts that its blue team trains on, if others are held out from it."""
        return self.phases[-1].blue


@dataclass(frozen=True)
class Cohort:
    """Phases of one kind that the same programs train and measure at the same steps."""

    kind: Kind
    model: ModelSignature
    signature: Signature | None  # None where weights are only measured
    phases: tuple[Phase, ...]

    @property
    def steps(self) -> int:
        """Optimizer steps of each of its phases, which have as many."""
        return self.phases[0].steps

    @property
    def tokens_a_step(self) -> int:
        """Tokens that one phase trains on in one step, padding included."""
        return self.signature.batch * self.signature.length if self.signature else 0


def evaluation_steps(phase: Phase) -> list[int]:
    """The steps after which a phase is measured: log-spaced, the last one always."""
    if not phase.steps:
        return [0]
    spaced = np.geomspace(phase.steps, 1, min(phase.config.evaluate.points, phase.steps))
    return sorted({round(float(step)) for step in spaced})
