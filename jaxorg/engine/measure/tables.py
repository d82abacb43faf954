"""From stored records to rows of the tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jaxorg.config import content_hash
from jaxorg.engine.measure.figures import Bounds, Chain, figures
from jaxorg.engine.measure.folding import folded
from jaxorg.planning.phases import Cohort, Phase, Run
from jaxorg.planning.plan import Plan
from jaxorg.storage import results
from jaxorg.storage.glance import Record
from jaxorg.storage.layout import STEPS
from jaxorg.storage.store import Store
from jaxorg.sweepfile.controls import CLEAN

_FROM_LAST = ("device", "versions", "git_commit", "prereg")  # of a run's last record
_MAKERS = (
    *(f"engine/measure/{name}.py" for name in ("figures", "folding", "gate", "tables")),
    "storage/results.py",
)
RECORDS_AT_ONCE = 64  # in memory; a phase that several runs share is asked for again soon

Row = dict[str, Any]


class TableWriter:
    """Writes a sweep's tables, one part a cohort, from the phases that are done."""

    def __init__(self, plan: Plan, store: Store):
        self._plan, self._store = plan, store
        self._parts = results.Parts(store.folder)
        self._record = lru_cache(maxsize=RECORDS_AT_ONCE)(self._read_record)
        self._code = code_digest()
        names = list(dict.fromkeys(path for run in plan.runs for path in run.spec.fields))
        self._fields = {
            name: results.field_type(run.spec.fields[name] for run in plan.runs) for name in names
        }

    def _read_record(self, fingerprint: str) -> Record:
        return self._store.record(fingerprint, self._plan.measured(fingerprint))

    def move_others(self, place: Path) -> int:
        """Move files that the plan does not account for to `place`; how many that were."""
        names = {_part(self._plan, cohort) for cohort in self._plan.cohorts}
        return self._parts.move_others(names, place)

    def move_all(self, place: Path) -> int:
        """The same with every file: what is asked for now is measured otherwise."""
        return self._parts.move_others((), place)

    def clear(self) -> None:
        """Remove every part: the sweep starts afresh."""
        self._parts.clear()

    def write(self, cohort: Cohort) -> None:
        """Bring a cohort's part of each table up to date with what is stored."""
        part = _part(self._plan, cohort)
        fingerprints = {phase.fingerprint for phase in cohort.phases}
        runs = [r for r in self._plan.runs if fingerprints & {p.fingerprint for p in r.phases}]
        source = self._source(runs)
        if self._parts.is_current(part, source):
            return
        self._record.cache_clear()
        done = [
            (run, phase)
            for run in runs
            for phase in run.phases
            if phase.fingerprint in fingerprints and self._store.has(phase.fingerprint)
        ]
        tables = {
            table: (schema, self._all_rows(table, done))
            for table, schema in results.SCHEMAS.items()
        }
        ended = [r for r in runs if r.phases[-1].fingerprint in fingerprints and self._status(r)]
        if ended:
            rows = (self._run_row(run) for run in ended)
            tables["runs"] = results.runs_schema(self._fields), rows
        self._parts.write(part, source, tables)
        self._record.cache_clear()

    def _source(self, runs: Sequence[Run]) -> str:
        """What a part with these runs is made from, besides what names it."""
        chains = [
            (
                run.run_id,
                run.arm,
                run.spec.seed,
                run.spec.config.model_dump_json(),
                [self._content(p.fingerprint) for p in run.phases],
                control and control.run_id,
            )
            for run in runs  # and their clean controls, which end in the same cohort
            for control in [self._plan.control_of(run)]
        ]
        schemas = {**results.SCHEMAS, "runs": results.runs_schema(self._fields)}
        columns = {
            table: [(column.name, str(column.type)) for column in schema]
            for table, schema in schemas.items()
        }
        spec, made_by = self._plan.spec, [results.SCHEMA_VERSION, self._code]
        return content_hash([made_by, spec.sweep.name, spec.size, columns, chains])

    def _content(self, fingerprint: str) -> list[str] | str | None:
        """What names the rows of a phase that is done; of another one, why it failed, if it did."""
        if not self._store.has(fingerprint):
            return self._store.failure(fingerprint)
        known = self._store.measured(fingerprint)
        wanted = self._plan.measured(fingerprint)
        return [self._store.digest(fingerprint), *(name for name in wanted if name in known)]

    def _status(self, run: Run) -> tuple[str, str] | None:
        """A run's status and error; None for one that is not at its end."""
        for phase in run.phases:
            if error := self._store.failure(phase.fingerprint):
                return "failed", f"{phase.kind}: {error}"
            if not self._store.has(phase.fingerprint):
                return None
            if self._store.diverged(phase.fingerprint):
                step = self._record(phase.fingerprint)["diverged"]
                return "diverged", f"{phase.kind}: diverged at step {step}"
        return "done", ""

    def _all_rows(self, table: str, done: Sequence[tuple[Run, Phase]]) -> Iterator[Row]:
        return (row for run, phase in done for row in self._rows(table, run, phase))

    def _rows(self, table: str, run: Run, phase: Phase) -> Iterator[Row]:
        about = {"run_id": run.run_id, "fingerprint": phase.fingerprint, "phase": phase.kind}
        record = self._record(phase.fingerprint)
        if table == "losses":
            content: Iterable[Row] = step_rows(record)
        else:
            content = folded(record["evals"], run.blue) if table == "evals" else record[table]
        return ({**about, **row} for row in content)

    def _run_row(self, run: Run) -> Row:
        chain, organism = self._chain(run), run.spec.config.organism
        records = chain.records
        last = records[[*records][-1]] if records else {}
        status, error = self._status(run) or ("", "")
        control = self._plan.control_of(run)
        if control and not self._ended(control):
            control = None
        gate = run.spec.config.evaluate.gate
        by_absence = bool(organism and organism.behaviour().by_absence)
        return {
            "run_id": run.run_id,
            "sweep": self._plan.spec.sweep.name,
            "size": self._plan.spec.size,
            "arm": run.arm,
            "control": run.spec.control,
            "clean_control": control and control.run_id,
            **{name: results.cell(run.spec.fields[name], t) for name, t in self._fields.items()},
            "seed": run.spec.seed,
            **dict(zip(results.SEEDS, run.spec.seeds, strict=True)),
            "config": run.spec.config.model_dump_json(),
            "status": status,
            "error": error,
            "parameters": last.get("parameters"),
            "tokens": sum(record["tokens"] for record in records.values()),
            "chip_seconds": sum(record["chip_seconds"] for record in records.values()),
            **{name: last.get(name) for name in _FROM_LAST},
            **figures(
                chain,
                Bounds(gate.of_controls if run.spec.control else gate, by_absence),
                never_poisoned=run.spec.control == CLEAN,
                control=self._chain(control) if control else None,
            ),
        }

    def _chain(self, run: Run) -> Chain:
        """What the phases of a run that are done have measured."""
        done = [phase for phase in run.phases if self._store.has(phase.fingerprint)]
        records = {phase.kind: self._folded(run, phase) for phase in done}
        return Chain(records, {phase.kind: phase.steps for phase in done})

    def _folded(self, run: Run, phase: Phase) -> Record:
        """A phase's record as a run has it."""
        record = self._record(phase.fingerprint)
        return {**record, "evals": folded(record["evals"], run.blue)}

    def _ended(self, run: Run) -> bool:
        return (self._status(run) or ("",))[0] == "done"


def step_rows(record: Record) -> Iterator[Row]:
    """Rows of the losses table, of a record whose steps an earlier jaxorg may have taken, or the
    first of them: it noted the loss alone."""
    steps = len(record["losses"])
    series = [record.get(name, []) for name in STEPS.values()]
    whole = [[*[None] * (steps - len(values)), *values] for values in series]
    for step, values in enumerate(zip(*whole, strict=True)):
        yield {"step": step, **dict(zip(STEPS, values, strict=True))}


def code_digest(package: Path = Path(__file__).parents[2]) -> str:
    """A digest of the code that makes rows and figures of records: tables of other code are made
    anew, and nobody has to raise a version."""
    files = [*(package / name for name in _MAKERS), *sorted((package / "stats").glob("*.py"))]
    return content_hash([file.read_text(encoding="utf-8") for file in files])


def _part(plan: Plan, cohort: Cohort) -> str:
    """A cohort's part files are named by what is in them."""
    fingerprints = {phase.fingerprint for phase in cohort.phases}
    runs = [run.run_id for run in plan.runs if fingerprints & {p.fingerprint for p in run.phases}]
    return f"{cohort.kind}-{content_hash([sorted(fingerprints), sorted(runs)])}"
