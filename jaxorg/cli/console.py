"""What a person sees of a sweep: its plan, its progress and its results."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import rich.console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from jaxorg import summary
from jaxorg.engine.measure.folding import folded
from jaxorg.engine.run import estimate
from jaxorg.errors import StorageError
from jaxorg.escape_controls import escape_controls
from jaxorg.planning.manifest import Manifest
from jaxorg.planning.phases import Cohort, Phase, Teacher
from jaxorg.planning.plan import Plan
from jaxorg.scorers.judge import Estimate, Judge
from jaxorg.storage.glance import Record
from jaxorg.storage.layout import Keep
from jaxorg.storage.lock import Lock
from jaxorg.sweepfile import roles

KNOWN_FROM = 0.03  # share of the work after which the time left is more than a guess
LOG_EVERY = 10.0  # seconds between lines of progress where there is no terminal


class Console:
    """Tells people about one sweep; hears of its progress as the engine's watcher."""

    def __init__(self, plan: Plan):
        self._plan = plan
        self._out = rich.console.Console(highlight=False)
        self._tokens_a_step = {
            phase.fingerprint: cohort.tokens_a_step
            for cohort in plan.cohorts
            for phase in cohort.phases
        }
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._done = self._total = 0
        self._lock: Lock | None = None
        self._began = self._told = time.monotonic()

    def print_plan(self, cores: int | None, keep: Keep, where: str | None) -> None:
        """What the sweep would do: counts, compiles, memory, the mesh if it is known before, and
        time on CPU cores, if on any."""
        plan = self._plan
        table = Table("phase", "phases", "optimizer", "steps", "batch", "tokens", "memory")
        for column in table.columns[1:]:
            column.justify, column.no_wrap = "right", True
        for cohort in plan.cohorts:
            signature = cohort.signature
            table.add_row(
                cohort.kind,
                str(len(cohort.phases)),
                signature.optimizer if signature else "none",
                f"{cohort.steps:,}",
                f"{signature.batch} x {signature.length}" if signature else "",
                f"{len(cohort.phases) * cohort.steps * cohort.tokens_a_step:,}",
                estimate.as_bytes(estimate.memory(cohort)),
            )
        self._out.print(table)
        chains = sum(len(run.phases) for run in plan.runs)
        self._line(
            f"{len(plan.runs)} runs, {chains} phases ({len(plan.phases)} distinct), "
            f"{plan.signatures} training programs to compile"
        )
        if any(cohort.signature and cohort.signature.packing for cohort in plan.cohorts):
            self._line(
                "rows are packed: a step takes in more conversations than its batch has rows"
            )
        if told := roles.described(path for axis in plan.spec.sweep.grid for path in axis):
            self._line(f"grid: {escape(told)}")
        holds = f"a run's state takes {estimate.as_bytes(estimate.largest(plan))}"
        self._line(f"mesh: {where or 'as the devices allow'}; {holds}")
        lasting = estimate.duration(plan, cores) if cores else "time on accelerators is not known"
        self._line(
            f"disk: about {estimate.as_bytes(estimate.disk(plan, keep, lanes=cores))}; {lasting}"
        )

    @contextmanager
    def progress(self, due: Sequence[Phase], lock: Lock, where: str) -> Iterator[None]:
        """Show how far the sweep is while the block runs, and leave word of it at the lock."""
        self._lock = lock
        self._total = sum(phase.steps * self._tokens_a_step[phase.fingerprint] for phase in due)
        self._line(
            f"{self._plan.spec.sweep.name} ({self._plan.spec.size}): {len(self._plan.runs)} runs, "
            f"{len(due)} of {len(self._plan.phases)} phases to do, on {where}, "
            f"into {escape(str(lock.path))}"
        )
        self._began = time.monotonic()
        if not self._out.is_terminal:
            yield
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._out) as bar:
            self._progress = bar
            self._task = bar.add_task("starting", total=self._total, rate="")
            yield
        self._progress = None

    def print_measuring(
        self,
        to_read: Sequence[Phase],
        to_measure: Sequence[Phase],
        to_train_again: Sequence[Phase],
    ) -> None:
        """What will be done for measurements that phases lack which are done already."""
        if to_read:
            self._line(f"scoring stored answers again: {len(to_read):,} phases")
        if to_measure:
            self._line(f"measuring again, from stored weights: {len(to_measure):,} phases")
        if to_train_again:
            tokens = sum(p.steps * self._tokens_a_step[p.fingerprint] for p in to_train_again)
            self._line(
                f"training again, as weights to measure were not stored: "
                f"{len(to_train_again):,} phases, {tokens:,} tokens"
            )

    def judging(self, judge: Judge, most: Estimate) -> None:
        """What a judge would be asked at most."""
        cost = "" if most.money is None else f", {most.money:,.2f} at its price"
        self._line(
            f"judge {escape(judge.model)}: at most {most.calls:,} questions, about "
            f"{most.tokens_in:,} tokens in and {most.tokens_out:,} out{cost}"
        )

    def asked(self, teacher: Teacher, prompts: int) -> None:
        """A teacher answers prompts."""
        self._line(f"{escape(teacher.model)} answers {prompts:,} prompts")

    def began(self, cohort: Cohort, left: int) -> None:
        """A cohort begins."""
        if self._progress:
            self._progress.update(self._task, description=f"{cohort.kind} ({left})")
        elif left:
            self._line(f"{cohort.kind}: {left} phases, {cohort.steps} steps each")

    def trained(self, tokens: int) -> None:
        """Tokens were trained on."""
        if not self._lock:
            return  # another process shows the progress
        self._done += tokens
        seconds = time.monotonic() - self._began
        rate = f"{self._done / seconds / 1000:,.1f}k tokens/s"
        if self._progress:
            self._progress.update(self._task, advance=tokens, rate=rate)
        if time.monotonic() - self._told < LOG_EVERY:
            return
        self._told = time.monotonic()
        share = self._done / self._total
        left = round(max(0.0, seconds / share - seconds)) if share > KNOWN_FROM else None
        with suppress(StorageError):  # word of the work is no part of it
            self._lock.note({"share": share, "seconds_left": left})
        if not self._progress:
            known = "" if left is None else f", about {left} s left"
            self._line(f"  {100 * share:.0f} %, {rate}{known}")

    def finished(self, phase: Phase, record: Record) -> None:
        """A phase is done: say what it measured last."""
        evals = folded(record["evals"], phase.blue)
        found = {(row["metric"], row["condition"]): row["value"] for row in evals}
        shown = {
            "ASR": found.get(("attack_exact", "triggered")),
            "FTR": found.get(("attack_exact", "clean")),
            "capability": found.get(("capability", "clean")),
        }
        parts = [f"{name} {100 * v:5.1f} %" for name, v in shown.items() if v is not None]
        if shown["capability"] is not None and (trust := summary.trust_of(record["evals"])):
            parts[-1] += f" ({trust.mark})"
        if record["diverged"] is not None:
            parts.append(f"diverged at step {record['diverged']}")
        label = escape(self._plan.labels[phase.fingerprint])
        self._line(f"  {phase.kind:<9} seed {phase.seed:<3} {'  '.join(parts)}  {label}")

    def failed(self, phase: Phase, error: str) -> None:
        """A phase cannot be done: say why."""
        label = escape(self._plan.labels[phase.fingerprint])
        self._line(f"  {phase.kind:<9} seed {phase.seed:<3} failed: {escape(error)}  {label}")

    def narrowed(self, cohort: Cohort, width: int) -> None:
        """Memory ran out."""
        self._line(
            f"  {cohort.kind}: out of memory, continuing with {width} runs at a time per device"
        )

    def warn(self, text: str) -> None:
        """Something that a person should know of."""
        self._line(escape(text))

    def changed(self, before: Manifest, now: Manifest, moved: Path | None) -> None:
        """The folder was used for another version of the sweep file: say which runs are which."""
        old, new = set(before.runs), set(now.runs)
        self._line(
            f"the sweep changed: {len(old & new)} runs are kept, {len(new - old)} are new, "
            f"{len(old - new)} are no longer in it"
        )
        if moved:
            self._line(f"earlier tables were moved to {escape(str(moved))}")

    def _line(self, text: str) -> None:
        """Print a line as it is: in a log, a folded line is two."""
        self._out.print(escape_controls(text), soft_wrap=True)

    def print_results(self, folder: Path) -> None:
        """The sweep's results by arm, and where to look next."""
        if any(run.spec.config.organism for run in self._plan.runs):
            for table in summary.terminal_tables(folder):
                self._out.print()
                self._out.print(table)
        self._line(f"tables: {escape(str(folder))}/{{runs,evals,losses,samples}}")
        self._line(f"page:   python -m jaxorg.report {escape(str(folder))}")
