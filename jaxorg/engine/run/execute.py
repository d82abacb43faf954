"""Walks a plan: which phases are due, how wide, in which groups, and what to do when one fails."""

from __future__ import annotations

import logging
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property, lru_cache
from typing import NamedTuple, Protocol

from jax.sharding import Mesh

from jaxorg.distributed import processes
from jaxorg.distributed.interrupt import Stopped
from jaxorg.distributed.runtime import out_of_memory
from jaxorg.engine.cohort import Scorer, Trainer
from jaxorg.engine.run import judging
from jaxorg.engine.run.group import Group
from jaxorg.engine.run.inputs import Inputs
from jaxorg.engine.run.profile import Traced, nothing_traced
from jaxorg.engine.run.stored_answers import lacks_reading_alone, read_stored_answers
from jaxorg.engine.run.surroundings import Surroundings
from jaxorg.engine.run.weights import adapters_before, weights_after, weights_before
from jaxorg.engine.run.width import auto_width
from jaxorg.errors import Damaged, Parted, Refusal, StorageError
from jaxorg.evaluators import EVALUATORS
from jaxorg.evaluators.base import OfAnswers
from jaxorg.planning.measurements import ANSWERS, Names
from jaxorg.planning.phases import Cohort, Phase
from jaxorg.planning.plan import Plan
from jaxorg.planning.signature import Signature
from jaxorg.storage.glance import Record
from jaxorg.storage.layout import Keep
from jaxorg.storage.store import Store

LOG = logging.getLogger(__name__)
LONGEST_ERROR = 300  # characters
# Signatures whose compiled programs stay in memory, from one sweep of a process to the next. Others
# come from the cache on disk. On a CPU each takes about a thousand memory maps, and XLA crashes
# when a process has none of 65,530 left.
PROGRAMS = 16
trainer_of = lru_cache(PROGRAMS)(Trainer)
scorer_of = lru_cache(PROGRAMS)(Scorer)


class Watcher(Protocol):
    """Who is told how a sweep goes on. One that raises is told no more, and changes nothing."""

    def began(self, cohort: Cohort, left: int) -> None:
        """A cohort begins; `left` of its phases are still to be trained."""

    def trained(self, tokens: int) -> None:
        """That many tokens, padding included, were trained on, summed over phases."""

    def finished(self, phase: Phase, record: Record) -> None:
        """A phase is done and stored."""

    def failed(self, phase: Phase, error: str) -> None:
        """A phase cannot be done."""

    def narrowed(self, cohort: Cohort, width: int) -> None:
        """Memory ran out; a cohort goes on with `width` runs side by side."""


class Work(NamedTuple):
    """Fingerprints of the phases to bring to done, of those that only lack measurements, and of
    those of which some are read from answers that are stored."""

    train: set[str]
    measure: set[str]
    read: set[str]


class NextGroup(NamedTuple):
    """Phases to do side by side: to measure with what they had at a step, or to train."""

    measured: int | None
    phases: Sequence[Phase]


class Engine:
    """Executes cohorts on one mesh. Programs are made once a signature."""

    def __init__(
        self,
        plan: Plan,
        inputs: Inputs,
        store: Store,
        mesh: Mesh,
        width: int | None,
        keep: Keep,
        watcher: Watcher,
        stopping: Callable[[], int | None],
        provenance: Record,
        only: str | None = None,
        traced: Traced = nothing_traced,
    ):
        """Prepare to execute a plan.

        Args:
            plan: the plan.
            inputs: what its phases start from.
            store: of the results folder.
            mesh: devices.
            width: runs that a device trains side by side; None chooses for each program.
            keep: which weights stay on disk.
            watcher: is told how it goes on.
            stopping: is asked at every safe point, and gives an exit code to stop with.
            provenance: what each record says of the program that made it.
            only: the evaluator that measures; None for all.
            traced: is around calls that a trace is wanted of.
        """
        self._plan, self._inputs, self._store, self._only = plan, inputs, store, only
        self._watcher: Watcher | None = watcher
        self._asks = judging.asks(inputs, store, mesh, stopping)
        self._trains = True
        self.unread: dict[str, str] = {}
        """Phases whose answers could not be read, by fingerprint, and why."""
        self._mesh, self._keep, self._stopping = mesh, keep, stopping
        self._phases = {phase.fingerprint: phase for phase in plan.phases}
        self._audited = {phase.audits for phase in plan.phases}
        self._narrowed: dict[Signature, int] = {}
        self._width = cache(
            lambda signature: width or auto_width(signature, mesh, _most(plan, signature))
        )
        self._around = Surroundings(
            inputs=inputs,
            store=store,
            weights_before=lambda phase: weights_before(phase, plan, inputs, store),
            answering_weights=lambda phase: weights_after(
                self._phases[phase.answered_by or ""], plan, inputs, store
            ),
            scorer=lambda model, width: scorer_of(model, mesh, width),
            adapters_before=lambda phase: adapters_before(phase, inputs, store),
            wanted=self._wanted,
            missing=self._missing,
            named=plan.measured,
            keeps_weights=lambda phase: keep != "none" or phase.fingerprint in self._sources(),
            keeps_snapshots=keep == "log",
            stopping=stopping,
            trained=lambda tokens: self._tell(lambda watcher: watcher.trained(tokens)),
            finished=self._finished,
            traced=traced,
            devices=mesh.size,
            provenance=provenance,
        )

    @property
    def due(self) -> list[Phase]:
        """The phases of which something is to do and can be done, parents first."""
        read = self._work.read
        return [p for p in self._plan.phases if self._is_due(p) or p.fingerprint in read]

    @property
    def to_train(self) -> list[Phase]:
        """Those of them that are to be trained."""
        return [phase for phase in self.due if phase.fingerprint in self._work.train]

    def run(self, cohort: Cohort) -> None:
        """Bring every phase of a cohort to done, or to failed with what is wrong.

        Raises:
            Stopped: a signal asked for it; what was trained is kept.
            Damaged: something that was done is not what was written any more; see `look_again`.
            StorageError: the disk does not take the results.
        """
        processes.first("cohort", lambda: self._begin(cohort))
        processes.first("read", lambda: self._read(cohort))
        alone: set[str] = set()  # of groups that failed: one by one shows which of them it was
        while processes.first("due", lambda: bool(self._due_of(cohort.phases))):
            width = self._width_of(cohort)
            scorer = scorer_of(cohort.model, self._mesh, width)
            group = self._next_group(cohort, scorer.lanes, alone)
            try:
                self._bring(cohort, scorer, group, width)
            except (Stopped, Damaged, StorageError, Parted):
                raise
            except Exception as error:  # whatever it is must not take the others with it
                processes.shared(error)
                self._go_on_after(error, cohort, group.phases, width, alone)
        processes.first("read at last", lambda: self._read(cohort))
        processes.first("rest", self._drop)

    def _tell(self, tell: Callable[[Watcher], None]) -> None:
        """Tell the watcher something: what is seen of a sweep has no say in it."""
        if self._watcher is None:
            return
        try:
            tell(self._watcher)
        except Exception as error:
            self._watcher = None
            LOG.warning("jaxorg: progress is not shown any more (%r)", error)

    def _begin(self, cohort: Cohort) -> None:
        left = sum(p.fingerprint in self._work.train for p in self._due_of(cohort.phases))
        self._tell(lambda watcher: watcher.began(cohort, left))

    def look_again(self) -> None:
        """Find out again what is to do, since something that was done is damaged: whoever asks
        runs the cohorts from the first on."""
        vars(self).pop("_work", None)
        self._store.look_again()
        self._inputs.look_again()

    def _due_of(self, phases: Sequence[Phase]) -> list[Phase]:
        return [phase for phase in phases if self._is_due(phase)]

    @property
    def to_measure(self) -> list[Phase]:
        """Phases that are done and lack measurements, for which their weights are stored."""
        return [phase for phase in self.due if phase.fingerprint in self._work.measure]

    @property
    def to_read(self) -> list[Phase]:
        """Phases whose stored answers were not read by all evaluators."""
        return [self._phases[name] for name in self._phases if name in self._work.read]

    @property
    def to_train_again(self) -> list[Phase]:
        """Phases that are done and lack measurements of weights that are not stored."""
        again = self._work.train & {*filter(self._store.has, self._phases)}
        lacks = (self._phases[fingerprint] for fingerprint in again)
        return [phase for phase in lacks if phase.changes and self._missing(phase)]

    @cached_property
    def _work(self) -> Work:
        """What is to be done. Only the first of several processes asks."""
        work = Work(set(), set(), set())
        sources: set[str] = set()
        for phase in reversed(self._plan.phases):  # children first
            name, missing = phase.fingerprint, self._missing(phase)
            if not (self._trains or self._store.has(name)):
                continue
            if self._store.has(name) and self._unread(phase):
                work.read.add(name)
            needed = name in sources and not self._store.has_weights(name)
            gone = any(not self._can_measure(phase, step) for step in missing)
            if needed or gone or not self._store.has(name):
                work.train.add(name)
                sources.update(self._plan.sources(phase))
            elif missing:
                work.measure.add(name)
                sources.update(self._plan.sources(phase) if phase.lora else ())
        return work

    def _missing(self, phase: Phase) -> list[int]:
        """The steps of which something is not stored that must be measured with their weights."""
        lacks = self._lacks(phase).items()
        return [step for step, names in lacks if not lacks_reading_alone(phase, names)]

    def _unread(self, phase: Phase) -> Mapping[int, Sequence[str]]:
        """The evaluators that lack nothing but to read answers that are stored, by step."""
        lacks = self._lacks(phase).items()
        return {step: names for step, names in lacks if lacks_reading_alone(phase, names)}

    def _lacks(self, phase: Phase) -> Mapping[int, Sequence[str]]:
        """The evaluators whose measurement is not stored, by step; a step that lacks none is left
        out."""
        known = self._store.measured(phase.fingerprint)
        wanted = self._wanted(phase.fingerprint)
        lacks = {s: [e for e in names if names[e] not in known] for s, names in wanted.items()}
        return {step: names for step, names in lacks.items() if names}

    def _wanted(self, fingerprint: str) -> Mapping[int, Names]:
        """What is to be measured of a phase, and its names, by step."""
        wanted = self._plan.measurements(fingerprint)
        if self._only is None:
            return wanted
        read = issubclass(EVALUATORS[self._only], OfAnswers) or fingerprint in self._audited
        chosen = {self._only, ANSWERS} if read else {self._only}
        return {
            step: {evaluator: name for evaluator, name in names.items() if evaluator in chosen}
            for step, names in wanted.items()
        }

    def measure_alone(self) -> list[Phase]:
        """Train nothing from now on: measure phases that are done.

        Returns:
            Those that would have to be trained again.
        """
        self._trains = False
        vars(self).pop("_work", None)
        return [p for p in self._plan.phases if p.fingerprint in self._work.train and p.changes]

    def _read(self, cohort: Cohort) -> None:
        """Let evaluators read answers that are stored. What could not be read can be later: it
        fails no phase. Whoever refuses once, such as a judge that cannot be reached, is not asked
        again."""
        for phase in cohort.phases:
            name = phase.fingerprint
            if self.unread or not self._store.has(name) or not (unread := self._unread(phase)):
                continue
            try:
                wanted = self._plan.measurements(name)
                read_stored_answers(phase, unread, wanted, self._inputs, self._store, self._asks)
            except (Stopped, Damaged, StorageError):
                raise
            except Exception as error:  # whatever it is must not take the others with it
                self.unread[name] = _line(error)
                self._tell(lambda watcher: watcher.failed(phase, self.unread[name]))  # noqa: B023
            self._work.read.discard(name)

    def _can_measure(self, phase: Phase, step: int) -> bool:
        """Whether the weights that a phase had at a step are stored as its own."""
        if step < phase.steps:
            return self._store.has_snapshot(phase.fingerprint, step)
        return self._store.has_weights(phase.fingerprint)

    def _is_due(self, phase: Phase) -> bool:
        """Whether something of a phase is to do, and neither it nor one before it failed or
        diverged."""
        name = phase.fingerprint
        if name not in self._work.measure | self._work.train or self._store.failure(name):
            return False
        if name in self._work.train and phase.changes and not self._trains:
            return False
        before = phase.parent
        while before is not None:
            if self._store.failure(before) or self._store.diverged(before):
                return False
            before = self._phases[before].parent
        return True

    def _sources(self) -> set[str]:
        """Fingerprints whose weights are needed by what is to do."""
        work = self._work
        phases = (self._phases[name] for name in work.train | work.measure)
        return work.measure | {source for phase in phases for source in self._plan.sources(phase)}

    def _width_of(self, cohort: Cohort) -> int:
        if cohort.signature is None or not cohort.steps:
            return 1
        return self._narrowed.get(cohort.signature) or int(self._width(cohort.signature))

    def _next_group(self, cohort: Cohort, lanes: int, alone: set[str]) -> NextGroup:
        """Up to `lanes` due phases that stand at the same step, the most advanced first; when all
        are trained, those to measure."""
        step, names = processes.first("group", lambda: self._choose_group(cohort, lanes, alone))
        return NextGroup(step, [self._phases[name] for name in names])

    def _choose_group(
        self, cohort: Cohort, lanes: int, alone: set[str]
    ) -> tuple[int | None, list[str]]:
        due = self._due_of(cohort.phases)
        by_step: dict[int, list[str]] = defaultdict(list)
        for phase in due:
            if phase.fingerprint in self._work.train:
                by_step[self._store.partial_step(phase.fingerprint)].append(phase.fingerprint)
        measured = None
        if not by_step:
            for phase in due:
                by_step[self._missing(phase)[0]].append(phase.fingerprint)
            measured = max(by_step)
        furthest = by_step[max(by_step)]
        if furthest[0] in alone:
            return measured, furthest[:1]
        return measured, [name for name in furthest if name not in alone][:lanes]

    def _bring(self, cohort: Cohort, scorer: Scorer, chosen: NextGroup, width: int) -> None:
        if exit_code := self._stopping():
            raise Stopped(exit_code)
        group = Group(self._around, scorer, chosen.phases)
        if cohort.signature is None:
            group.measure_only()
        elif chosen.measured is not None:
            trainer = trainer_of(cohort.signature, self._mesh, width)
            group.measure_stored(trainer, chosen.measured)
        elif cohort.steps:
            group.train(trainer_of(cohort.signature, self._mesh, width))
        else:
            group.change_only(trainer_of(cohort.signature, self._mesh, width))

    def _finished(self, phase: Phase, record: Record) -> None:
        self._work.train.discard(phase.fingerprint)
        if not self._missing(phase):
            self._work.measure.discard(phase.fingerprint)
        self._drop_datasets()
        self._tell(lambda watcher: watcher.finished(phase, record))

    def _go_on_after(
        self, error: Exception, cohort: Cohort, group: Sequence[Phase], width: int, alone: set[str]
    ) -> None:
        """Decide what comes after a group failed: fewer runs at a time, each of them alone, or
        without the one that failed alone."""
        short = processes.first("failed", lambda: out_of_memory(error))
        if cohort.signature and short and width > 1:
            self._narrowed[cohort.signature] = width // 2
            self._tell(lambda watcher: watcher.narrowed(cohort, width // 2))
        elif len(group) > 1:
            alone |= {phase.fingerprint for phase in group}
        else:
            processes.first("failed alone", lambda: self._fail(group[0], error))

    def _fail(self, phase: Phase, error: Exception) -> None:
        line = _line(error)
        self._store.fail(phase.fingerprint, line, "".join(traceback.format_exception(error)))
        self._tell(lambda watcher: watcher.failed(phase, line))

    def _drop_datasets(self) -> None:
        self._inputs.drop_datasets([self._phases[name] for name in self._work.train])

    def _drop(self) -> None:
        """Drop datasets that nobody needs any more, and weights that no phase to come starts from,
        if none are to be kept."""
        self._drop_datasets()
        if self._keep != "none":
            return
        needed = self._sources()
        for fingerprint in self._phases:
            if fingerprint not in needed and self._store.has_weights(fingerprint):
                self._store.drop_weights(fingerprint)


def _line(error: Exception) -> str:
    """What went wrong, in a line."""
    line = " ".join(str(error).split())
    line = line if isinstance(error, Refusal) else f"{type(error).__name__}: {line}"
    return line[:LONGEST_ERROR]


def _most(plan: Plan, signature: Signature) -> int:
    """Phases in the largest cohort of a signature."""
    return max(len(cohort.phases) for cohort in plan.cohorts if cohort.signature == signature)
