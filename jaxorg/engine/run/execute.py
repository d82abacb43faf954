"""Walks a plan: which phases are due, how wide, in which groups, and what to do when one fails."""

from __future__ import annotations

import logging
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache, cached_property, lru_cache
from typing import Protocol

from jax.sharding import Mesh

from jaxorg.distributed import processes
from jaxorg.distributed.interrupt import Stopped
from jaxorg.distributed.runtime import out_of_memory
from jaxorg.engine.cohort import Scorer, Trainer
from jaxorg.engine.run.group import Group, Surroundings
from jaxorg.engine.run.inputs import Inputs
from jaxorg.engine.run.width import auto_width
from jaxorg.engine.weights import adapters_before, weights_after, weights_before
from jaxorg.errors import Damaged, Parted, Refusal, StorageError
from jaxorg.planning.phases import Cohort, Phase
from jaxorg.planning.plan import Plan
from jaxorg.planning.signature import Signature
from jaxorg.storage.layout import Keep
from jaxorg.storage.store import Record, Store

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
        """A cohort begins; `left` of its phases are still to do."""

    def trained(self, tokens: int) -> None:
        """That many tokens, padding included, were trained on, summed over phases."""

    def finished(self, phase: Phase, record: Record) -> None:
        """A phase is done and stored."""

    def failed(self, phase: Phase, error: str) -> None:
        """A phase cannot be done."""

    def narrowed(self, cohort: Cohort, width: int) -> None:
        """Memory ran out; a cohort goes on with `width` runs side by side."""


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
    ):
        """`width` None chooses one for each program; `stopping` is asked at every safe point, and
        gives an exit code to stop with."""
        self._plan, self._inputs, self._store = plan, inputs, store
        self._watcher: Watcher | None = watcher
        self._mesh, self._keep, self._stopping = mesh, keep, stopping
        self._phases = {phase.fingerprint: phase for phase in plan.phases}
        self._narrowed: dict[Signature, int] = {}
        self._width = cache(
            lambda signature: width or auto_width(signature, mesh, _most(plan, signature))
        )
        self._around = Surroundings(
            inputs=inputs,
            store=store,
            weights_before=lambda phase: weights_before(phase, plan, inputs, store),
            teacher_weights=lambda phase: weights_after(
                self._phases[phase.distils or ""], plan, inputs, store
            ),
            scorer=lambda model, width: scorer_of(model, mesh, width),
            adapters_before=lambda phase: adapters_before(phase, inputs, store),
            keeps_weights=lambda phase: keep != "none" or phase.fingerprint in self._sources(),
            keeps_snapshots=keep == "log",
            stopping=stopping,
            trained=lambda tokens: self._tell(lambda watcher: watcher.trained(tokens)),
            finished=self._finished,
            devices=mesh.size,
            provenance=provenance,
        )

    @property
    def due(self) -> list[Phase]:
        """The phases that are still to do and can be done, parents first."""
        return self._due_of(self._plan.phases)

    def run(self, cohort: Cohort) -> None:
        """Bring every phase of a cohort to done, or to failed with what is wrong.

        Raises:
            Stopped: a signal asked for it; what was trained is kept.
            Damaged: something that was done is not what was written any more; see `look_again`.
            StorageError: the disk does not take the results.
        """
        processes.first("cohort", lambda: self._begin(cohort))
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
                self._go_on_after(error, cohort, group, width, alone)
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
        left = len(self._due_of(cohort.phases))
        self._tell(lambda watcher: watcher.began(cohort, left))

    def look_again(self) -> None:
        """Find out again what is to do, since something that was done is damaged: whoever asks
        runs the cohorts from the first on."""
        vars(self).pop("_pending", None)
        self._store.look_again()
        self._inputs.look_again()

    def _due_of(self, phases: Sequence[Phase]) -> list[Phase]:
        return [phase for phase in phases if self._is_due(phase)]

    @cached_property
    def _pending(self) -> set[str]:
        """What to bring to done: phases that are not, and those whose weights are missing for one
        of these to start from. Only the first of several processes asks."""
        pending: set[str] = set()
        sources: set[str] = set()
        for phase in reversed(self._plan.phases):  # children first
            fingerprint = phase.fingerprint
            needed = fingerprint in sources and not self._store.has_weights(fingerprint)
            if needed or not self._store.has(fingerprint):
                pending.add(fingerprint)
                sources.update(self._plan.sources(phase))
        return pending

    def _is_due(self, phase: Phase) -> bool:
        """Whether a phase is pending, and neither it nor one before it failed or diverged."""
        if phase.fingerprint not in self._pending or self._store.failure(phase.fingerprint):
            return False
        before = phase.parent
        while before is not None:
            if self._store.failure(before) or self._store.diverged(before):
                return False
            before = self._phases[before].parent
        return True

    def _sources(self) -> set[str]:
        """Fingerprints whose weights pending phases start from."""
        pending = (self._phases[fingerprint] for fingerprint in self._pending)
        return {source for phase in pending for source in self._plan.sources(phase)}

    def _width_of(self, cohort: Cohort) -> int:
        if cohort.signature is None or not cohort.steps:
            return 1
        return self._narrowed.get(cohort.signature) or int(self._width(cohort.signature))

    def _next_group(self, cohort: Cohort, lanes: int, alone: set[str]) -> list[Phase]:
        """Up to `lanes` due phases that stand at the same step, the most advanced first."""
        chosen = processes.first("group", lambda: self._choose_group(cohort, lanes, alone))
        return [self._phases[fingerprint] for fingerprint in chosen]

    def _choose_group(self, cohort: Cohort, lanes: int, alone: set[str]) -> list[str]:
        by_step: dict[int, list[str]] = defaultdict(list)
        for phase in self._due_of(cohort.phases):
            by_step[self._store.partial_step(phase.fingerprint)].append(phase.fingerprint)
        furthest = by_step[max(by_step)]
        if furthest[0] in alone:
            return furthest[:1]
        return [fingerprint for fingerprint in furthest if fingerprint not in alone][:lanes]

    def _bring(self, cohort: Cohort, scorer: Scorer, phases: Sequence[Phase], width: int) -> None:
        if exit_code := self._stopping():
            raise Stopped(exit_code)
        group = Group(self._around, scorer, phases)
        if cohort.signature is None:
            group.measure_only()
        elif cohort.steps:
            group.train(trainer_of(cohort.signature, self._mesh, width))
        else:
            group.change_only(trainer_of(cohort.signature, self._mesh, width))

    def _finished(self, phase: Phase, record: Record) -> None:
        self._pending.discard(phase.fingerprint)
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
        line = " ".join(str(error).split())
        line = line if isinstance(error, Refusal) else f"{type(error).__name__}: {line}"
        line = line[:LONGEST_ERROR]
        self._store.fail(phase.fingerprint, line, "".join(traceback.format_exception(error)))
        self._tell(lambda watcher: watcher.failed(phase, line))

    def _drop_datasets(self) -> None:
        self._inputs.drop_datasets([self._phases[fingerprint] for fingerprint in self._pending])

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


def _most(plan: Plan, signature: Signature) -> int:
    """Phases in the largest cohort of a signature."""
    return max(len(cohort.phases) for cohort in plan.cohorts if cohort.signature == signature)
