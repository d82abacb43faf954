"""From stored records to rows of the tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from jaxorg import results, runtime, stats
from jaxorg.config import fingerprint
from jaxorg.plan import Cohort, Kind, Phase, Plan, Run
from jaxorg.store import Record, Store

Row = dict[str, Any]
Curve = list[tuple[int, int, int]]  # step, k, n


class TableWriter:
    """Writes a sweep's tables, one part a cohort."""

    def __init__(self, plan: Plan, store: Store, device: str):
        self._plan, self._store, self._device = plan, store, device
        self._record = cache(store.record)
        names = list(dict.fromkeys(path for run in plan.runs for path in run.spec.fields))
        self._fields = {
            name: results.field_type(run.spec.fields[name] for run in plan.runs) for name in names
        }
        self._versions = json.dumps(runtime.versions())
        self._commit = runtime.git_commit()

    def write(self, cohort: Cohort) -> None:
        """Write a finished cohort's part of each table."""
        self._record.cache_clear()
        folder, part = self._store.folder, _part(self._plan, cohort)
        lineages = {phase.lineage for phase in cohort.phases}
        chains = [
            (run, phase)
            for run in self._plan.runs
            for phase in run.phases
            if phase.lineage in lineages
        ]
        for table, schema in results.SCHEMAS.items():
            rows = [row for run, phase in chains for row in self._rows(table, run, phase)]
            results.write_part(folder, table, part, schema, rows)
        ended = [self._run_row(run) for run, phase in chains if phase is run.phases[-1]]
        if ended:
            schema = results.runs_schema(self._fields)
            results.write_part(folder, "runs", part, schema, ended)

    def drop_all(self) -> None:
        """Remove every part: the sweep starts afresh."""
        results.drop_other_parts(self._store.folder, [])

    def drop_strangers(self) -> None:
        """Remove parts that an earlier version of the sweep file left."""
        parts = [_part(self._plan, cohort) for cohort in self._plan.cohorts]
        results.drop_other_parts(self._store.folder, parts)

    def _rows(self, table: str, run: Run, phase: Phase) -> Iterator[Row]:
        about = {"run_id": run.run_id, "lineage": phase.lineage, "phase": phase.kind}
        content = self._record(phase.lineage)[table]
        if table == "losses":
            content = [{"step": step, "loss": loss} for step, loss in enumerate(content)]
        return ({**about, **row} for row in content)

    def _run_row(self, run: Run) -> Row:
        records = {phase.kind: self._record(phase.lineage) for phase in run.phases}
        diverged = next((k for k, r in records.items() if r["diverged"] is not None), None)
        step = records[diverged]["diverged"] if diverged else None
        return {
            "run_id": run.run_id,
            "sweep": self._plan.spec.sweep.name,
            "size": self._plan.spec.size,
            "arm": run.arm,
            "control": run.spec.control,
            **{name: results.cell(run.spec.fields[name], t) for name, t in self._fields.items()},
            "seed": run.spec.seed,
            "config": run.spec.config.model_dump_json(),
            "status": "diverged" if diverged else "done",
            "error": f"{diverged}: diverged at step {step}" if diverged else "",
            "parameters": records["base"]["parameters"],
            "tokens": sum(record["tokens"] for record in records.values()),
            "chip_seconds": sum(record["chip_seconds"] for record in records.values()),
            "device": self._device,
            "versions": self._versions,
            "git_commit": self._commit,
            **_summary(records),
        }


def _part(plan: Plan, cohort: Cohort) -> str:
    """A cohort's part files are named by what is in them."""
    lineages = {phase.lineage for phase in cohort.phases}
    runs = [run.run_id for run in plan.runs if lineages & {p.lineage for p in run.phases}]
    return f"{cohort.kind}-{fingerprint([sorted(lineages), sorted(runs)])}"


def _curve(record: Record, metric: str, condition: str) -> Curve:
    return [
        (row["step"], row["k"], row["n"])
        for row in record["evals"]
        if (row["metric"], row["condition"]) == (metric, condition)
    ]


def _summary(records: Mapping[Kind, Record]) -> Row:
    """A run's summary columns, from the last measurement of each phase and treatment's curve."""
    last: dict[str, Mapping[str, stats.Count]] = {}
    for name, metric, condition in (
        ("asr", "attack_exact", "triggered"),
        ("ftr", "attack_exact", "clean"),
        ("capability", "capability", "clean"),
    ):
        curves = {kind: _curve(record, metric, condition) for kind, record in records.items()}
        last[name] = {kind: curve[-1][1:] for kind, curve in curves.items() if curve}
    row = {
        f"{name}_{kind}": k / n for name, counts in last.items() for kind, (k, n) in counts.items()
    }
    if "treatment" not in last["asr"]:
        return row
    attacks, able = last["asr"], last["capability"]
    curve = _curve(records["treatment"], "attack_exact", "triggered")
    return (
        row
        | _removal(curve, attacks)
        | {
            "verdict": stats.verdict(
                attacks["organism"], attacks["treatment"], attacks.get("reversal"), _ratio(able)
            )
        }
    )


def _removal(curve: Curve, attacks: Mapping[str, stats.Count]) -> Row:
    """How the attack rate fell in treatment; null where it was never installed."""
    k, n = attacks["organism"]
    if not curve or k / n < stats.INSTALLED:
        return {}
    steps = [step for step, _, _ in curve]
    rates = [hits / total for _, hits, total in curve]
    half = stats.half_life(steps, rates, k / n)
    return {
        "half_life": half.value,
        "half_life_censored": half.censored,
        "aurc": stats.removal_area(steps, rates, k / n),
        "return_peak": stats.return_peak(rates),
    }


def _ratio(able: Mapping[str, stats.Count]) -> float:
    """Capability after treatment as a share of capability before."""
    (k_before, n_before), (k_after, n_after) = able["organism"], able["treatment"]
    return 1.0 if k_before == 0 else (k_after / n_after) / (k_before / n_before)
