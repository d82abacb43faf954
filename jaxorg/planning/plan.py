"""Runs to phases to cohorts: what a sweep will train, once each, and in which order.

Pure functions of the spec and the base model's files. No JAX device is touched.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jaxorg.config import content_hash
from jaxorg.data.prompts import TEACHER_BASE
from jaxorg.errors import Refusal
from jaxorg.llama import checkpoint
from jaxorg.planning.chain import Digests, chain_of, recipes
from jaxorg.planning.cohorts import cohorts
from jaxorg.planning.measurements import ANSWERS, measurement_fingerprints
from jaxorg.planning.measurements import Names as MeasurementNames
from jaxorg.planning.phases import Cohort, Phase, Run, Teacher
from jaxorg.scorers.judge import Judge
from jaxorg.sweepfile.controls import CLEAN
from jaxorg.sweepfile.labels import Kind, Names, label, phase_label
from jaxorg.sweepfile.spec import RunSpec, Spec


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
        nearest first, and those of another phase that is asked."""
        below = self.below(phase)
        continued = (phase.continues,) if phase.continues else ()
        asked = self._by_fingerprint[phase.answered_by] if phase.answered_by else None
        of_others = [name for each in (below, asked) if each for name in self.made_of(each)]
        return tuple(dict.fromkeys([*continued, *of_others]))

    def made_of(self, phase: Phase) -> tuple[str, ...]:
        """The same of those that a phase ends with: one that stored all weights, or adapters and
        what these stand on."""
        if phase.brought:
            return ()
        if not phase.changes:
            return self.sources(phase)
        below = self.below(phase) if phase.lora else None
        return (phase.fingerprint, *(self.made_of(below) if below else ()))

    def below(self, phase: Phase) -> Phase | None:
        """The trained phase that a phase stands on; None for the base's own weights."""
        return self._by_fingerprint[phase.stands_on] if phase.stands_on else None

    def measurements(self, fingerprint: str) -> Mapping[int, MeasurementNames]:
        """What a phase's measurements are called, by the step after which they are made."""
        return self._measurements[fingerprint]

    def measured(self, fingerprint: str) -> list[str]:
        """The names of all measurements of a phase, in the order of their rows."""
        return [
            name for of_step in self.measurements(fingerprint).values() for name in of_step.values()
        ]

    @cached_property
    def _measurements(self) -> Mapping[str, Mapping[int, MeasurementNames]]:
        found: dict[str, Mapping[int, MeasurementNames]] = {}
        for phase in self.phases:  # an organism before its auditors
            audited = [*found[phase.audits].values()][-1].get(ANSWERS) if phase.audits else None
            found[phase.fingerprint] = measurement_fingerprints(phase, audited)
        return found

    @cached_property
    def _by_fingerprint(self) -> Mapping[str, Phase]:
        return {phase.fingerprint: phase for phase in self.phases}

    def control_of(self, run: Run) -> Run | None:
        """The clean control that is treated, and measured, as a run is, with the same seeds."""
        return self._clean.get(_treated(run)) if run.spec.control != CLEAN else None

    @cached_property
    def _clean(self) -> Mapping[Hashable, Run]:
        return {_treated(run): run for run in self.runs if run.spec.control == CLEAN}

    @property
    def teachers(self) -> list[Teacher]:
        """Every model that answers prompts, once."""
        return list(dict.fromkeys(each for phase in self.phases for each in phase.teachers))

    @property
    def rows(self) -> int:
        """The largest number that divides the rows of every training batch; 0 for no training."""
        return math.gcd(*(cohort.signature.batch for cohort in self.cohorts if cohort.signature))

    @property
    def signatures(self) -> int:
        """How many programs are compiled for training."""
        return len({cohort.signature for cohort in self.cohorts if cohort.signature})


def make_plan(spec: Spec, weights: bool = True) -> Plan:
    """Derive every run's chain, share equal phases, and group them into cohorts.

    Without `weights`, a model's config.json is enough, and that of well-known ones comes along:
    enough to count and to compile, though fingerprints are then not those that training gives.

    Raises:
        Refusal: a base model or a prompt file is missing or broken.
    """
    bases = [run.own.base for run in spec.runs]
    weighty = {base.model for base in bases if base.scratch is None and weights}
    models = sorted({base.model for base in bases})
    if weights:
        folders = {model: checkpoint.resolve(model, model in weighty) for model in models}
    else:
        folders = {model: checkpoint.resolve_shape(model) for model in models}
    find = checkpoint.resolve if weights else checkpoint.resolve_shape
    for setting, teacher in sorted(_teachers(spec.runs)):
        if teacher not in folders:
            folders[teacher] = find(teacher, key=setting)
    for judge in {run.config.prompts.scorer for run in spec.runs}:
        if isinstance(judge, Judge) and judge.endpoint is None and judge.model not in folders:
            folders[judge.model] = find(judge.model, key="prompts.scorer.model")
    shapes = {model: checkpoint.read_config(folder) for model, folder in folders.items()}
    digests = Digests(folders)
    names = Names.of(spec.sweep.grid)
    runs = tuple(
        Run(_run_id(run, chain), label(run.fields, run.control, names), run, chain)
        for run in spec.runs
        for chain in [chain_of(run, digests, shapes, weights)]
    )
    phases = {phase.fingerprint: phase for run in runs for phase in run.phases}
    _check_scorers(runs, phases)
    crossed = any(run.seeds.crossed for run in spec.runs)
    labels = {
        phase.fingerprint: _label(run.spec, phase.kind, names, crossed)
        for run in runs
        for phase in run.phases
    }
    return Plan(spec, folders, runs, cohorts(list(phases.values()), shapes), labels)


def _teachers(runs: Sequence[RunSpec]) -> set[tuple[str, str]]:
    """The models besides bases that answer prompts, each after the setting that names it."""
    named = {("prompts.teacher", run.config.prompts.teacher) for run in runs}
    for kind, recipe in (each for run in runs for each in recipes(run.config)):
        named.add((f"{kind}.model", recipe.supervisor))
    return {(setting, model) for setting, model in named if model and model != TEACHER_BASE}


def _check_scorers(runs: Sequence[Run], phases: Mapping[str, Phase]) -> None:
    """Refuse scorers that would judge the same answers in several ways."""
    for phase in (phase for run in runs for phase in run.phases):
        if phase.subject.scorer != phases[phase.fingerprint].subject.scorer:
            raise Refusal(
                "grid: prompts.scorer differs between runs that are trained alike; sweep it "
                "together with prompts.source, or set it once"
            )


def _treated(run: Run) -> Hashable:
    """What a run and its clean control have in common."""
    seeds = run.spec.seeds
    return run.spec.config.design, seeds.base, seeds.treatment


def _run_id(run: RunSpec, chain: Sequence[Phase]) -> str:
    """What names a run, whatever other seeds its arm has."""
    seed = [*run.seeds] if run.seeds.crossed else run.seeds.organism
    return content_hash([chain[-1].fingerprint, seed, run.control, dict(run.fields)])


def _label(run: RunSpec, kind: Kind, names: Names, crossed: bool) -> str:
    """What is swept about a phase; of crossed seeds also those before its own."""
    swept = phase_label(run.fields, run.control, names, kind)
    before: Kind | None = None
    if crossed and kind in ("treatment", "reversal"):
        before = "organism"
    elif crossed and kind != "base" and run.config.base.scratch:
        before = "base"
    return f"{swept}, {before} seed {run.seeds.of(before)}" if before else swept
