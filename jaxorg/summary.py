"""From a folder of parquet to small typed tables per arm: what the report and the terminal show.

An arm is one point of the grid; its seeds are the replicates. Estimates take finished runs only,
and say beside them how many did not finish.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich import box
from rich.table import Table
from rich.text import Text

from jaxorg import results, stats
from jaxorg.runtime import Refusal
from jaxorg.stats import Count, Interval, KaplanMeier
from jaxorg.visible import visible

SCHEMA = results.SCHEMA_VERSION.encode()
PHASES = ("base", "teacher", "organism", "treatment", "reversal")
ATTACK = ("attack_exact", "triggered")
FALSE_TRIGGER = ("attack_exact", "clean")
CAPABILITY = ("capability", "clean")
NOT_INSTALLED = "not installed"
NOT_TREATED = "not treated"

_RUNS = results.runs_schema({}).names
_EVALS = ["run_id", "phase", "step", "metric", "condition", "k", "n", "value"]
_SAMPLES = ["run_id", "phase", "step", "condition", "prompt", "response", "outcome"]

Metric = tuple[str, str]
"""A metric and the condition it was measured under."""


class Reading(NamedTuple):
    """One measurement of one run; `tally` is None for a mean that counts nothing."""

    step: int
    tally: Count | None
    value: float


@dataclass(frozen=True)
class Estimate:
    """A figure of one arm: the mean over seeds, its interval, and each seed's own value."""

    mean: float
    interval: Interval
    method: str
    points: tuple[float, ...]


@dataclass(frozen=True)
class Arm:
    """One arm. `finals` holds estimates at the last step of each phase: `finals[phase][metric]`.

    `half_life` is in treatment steps; `verdicts` counts finished runs.
    """

    label: str
    seeds: int
    diverged: int
    failed: int
    finals: Mapping[str, Mapping[Metric, Estimate]]
    half_life: KaplanMeier | None
    aurc: Estimate | None
    return_peak: Estimate | None
    verdicts: Counter[str]

    def final(self, phase: str, metric: Metric) -> Estimate | None:
        """The estimate at the end of a phase; None where nothing was measured."""
        return self.finals.get(phase, {}).get(metric)


@dataclass(frozen=True)
class Curve:
    """The attack rate of one arm over the steps of one phase; step 0 is the phase before."""

    arm: str
    group: str
    steps: tuple[int, ...]
    estimates: tuple[Estimate, ...]
    seeds: tuple[tuple[tuple[int, float], ...], ...]


@dataclass(frozen=True)
class Sample:
    """One answer of one run at the end of a phase."""

    phase: str
    condition: str
    prompt: str
    response: str
    outcome: str


@dataclass(frozen=True)
class Unfinished:
    """A run that diverged or failed, and why."""

    run_id: str
    arm: str
    seed: int
    status: str
    error: str


@dataclass(frozen=True)
class Summary:
    """All that a results folder says. Mappings keep the order in which they are to be shown."""

    runs: int
    arms: tuple[Arm, ...]
    curves: Mapping[str, tuple[Curve, ...]]
    samples: Mapping[str, tuple[Sample, ...]]
    unfinished: tuple[Unfinished, ...]
    provenance: Mapping[str, str]


def summarise(folder: Path) -> Summary:
    """Read a results folder and reduce it to tables per arm.

    Raises Refusal where the folder is missing, holds no results, or results of another schema.
    """
    runs = _label(read_table(folder, "runs", _RUNS))
    finished = runs[runs.status == "done"]
    evals = read_table(folder, "evals", _EVALS, required=len(finished) > 0)
    histories = _histories(evals[evals.run_id.isin(finished.run_id)])
    by_arm = [(str(label), rows) for label, rows in runs.groupby("label", sort=False)]
    return Summary(
        runs=len(runs),
        arms=tuple(_arm(label, rows, histories) for label, rows in by_arm),
        curves={
            phase: tuple(filter(None, (_curve(*arm, phase, histories) for arm in by_arm)))
            for phase in ("treatment", "reversal")
        },
        samples=_samples(read_table(folder, "samples", _SAMPLES, required=False), finished),
        unfinished=tuple(
            Unfinished(row.run_id, row.label, int(row.seed), row.status, _text(row.error))
            for row in runs[runs.status != "done"].itertuples()
        ),
        provenance=_provenance(runs),
    )


def read_table(
    folder: Path, table: str, columns: Sequence[str], required: bool = True
) -> pd.DataFrame:
    """All part files of one table; of `runs` every column, as the grid's fields are there too.

    Raises Refusal where there is none, or one that is damaged or of another schema.
    """
    if not folder.is_dir():
        raise Refusal(f"DIR: {folder} is not a folder; give a sweep's results folder")
    files = sorted((folder / table).glob("*.parquet"))
    if not files and not required:
        return pd.DataFrame(columns=columns)
    if not files:
        raise Refusal(f"DIR: {folder} has no {table}/*.parquet; give a sweep's results folder")
    parts = []
    try:
        for file in files:
            schema = pq.read_schema(file)
            found = (schema.metadata or {}).get(b"jaxorg_schema", b"none")
            if found != SCHEMA:
                raise Refusal(
                    f"jaxorg_schema: {file} has version {found.decode(errors='replace')}, this "
                    f"jaxorg reads {SCHEMA.decode()}; use the jaxorg that wrote it"
                )
            if missing := [name for name in columns if name not in schema.names]:
                raise Refusal(f"columns: {file} lacks {', '.join(missing)}; run the sweep again")
            parts.append(pq.read_table(file, columns=None if table == "runs" else list(columns)))
        whole = pa.concat_tables(parts, promote_options="permissive")
    except (pa.ArrowException, OSError) as error:
        raise Refusal(f"{table}: {error}; remove or replace the damaged part file") from error
    frame: pd.DataFrame = whole.to_pandas()
    return frame


def _label(runs: pd.DataFrame) -> pd.DataFrame:
    """Add `label` (the arm's name, unique) and `group` (its treatment); sort for showing.

    Results of several sweeps, sizes or controls may lie in one folder under one arm name: what
    differs goes into the label, so that only equal runs are pooled.
    """
    parts = pd.DataFrame(index=runs.index)
    for name in ("sweep", "size", "arm", "control"):
        if name == "arm" or runs[name].nunique() > 1:
            parts[name] = runs[name].map(_text)
    if "control" in parts:
        parts["control"] = parts.control.map(lambda name: name and f"{name} control")
    grid = [name for name in runs.columns if name not in _RUNS]
    treatments = [name for name in grid if name.startswith("treatment")]
    textual = [name for name in treatments if runs[name].map(_text).any()]
    return runs.assign(
        label=[" · ".join(filter(None, row)) or "all runs" for row in parts.to_numpy()],
        group=runs[textual[0]].map(_text) if textual else "",
        order=[
            (_text(row["control"]), *(_sortable(row[name]) for name in grid), row["seed"])
            for row in runs.to_dict("records")
        ],
    ).sort_values(["order", "run_id"])


def _text(cell: object) -> str:
    """A cell as text; an empty string for a missing one, which pandas makes None or nan."""
    return cell if isinstance(cell, str) else ""


def _sortable(cell: Any) -> tuple[int, float, str]:
    """A key that sorts numbers by size, then texts, then missing cells."""
    if isinstance(cell, str):
        return 1, 0.0, cell
    return (2, 0.0, "") if pd.isna(cell) else (0, float(cell), "")


History = Mapping[str, Mapping[Metric, Sequence[Reading]]]
"""One run's readings by phase and metric, in order of step."""


def _histories(evals: pd.DataFrame) -> Mapping[str, History]:
    histories: dict[str, dict[str, dict[Metric, list[Reading]]]] = {}
    ordered = evals.sort_values("step")[_EVALS].itertuples(index=False, name=None)
    for run, phase, step, metric, condition, k, n, value in ordered:
        reading = Reading(int(step), None if pd.isna(k) else (int(k), int(n)), float(value))
        phases = histories.setdefault(run, {})
        phases.setdefault(phase, {}).setdefault((metric, condition), []).append(reading)
    return histories


def _estimate(readings: Sequence[Reading]) -> Estimate:
    """Pool one reading a seed: counts as counts, means by their spread."""
    values = tuple(reading.value for reading in readings)
    tallies = [reading.tally for reading in readings if reading.tally]
    if len(tallies) < len(values):
        return Estimate(*stats.mean_interval(values), points=values)
    k, n = zip(*tallies, strict=True)
    return Estimate(*stats.seed_interval(k, n, seed=0), points=values)


def _share(column: pd.Series[float]) -> Estimate | None:
    """The mean of a figure that lies in [0, 1] but is no count; None where no run has one."""
    if not (points := tuple(column.dropna())):
        return None
    mean, found, method = stats.mean_interval(points)
    return Estimate(mean, Interval(max(found.low, 0.0), min(found.high, 1.0)), method, points)


def _arm(label: str, rows: pd.DataFrame, histories: Mapping[str, History]) -> Arm:
    status = Counter(rows.status)
    done = rows[rows.status == "done"]
    times = done.dropna(subset="half_life")
    late = times.half_life_censored.astype(bool)
    return Arm(
        label=label,
        seeds=len(done),
        diverged=status["diverged"],
        failed=status["failed"],
        finals=_finals([histories.get(run, {}) for run in done.run_id]),
        half_life=stats.kaplan_meier_median(times.half_life, late) if len(times) else None,
        aurc=_share(done.aurc),
        return_peak=_share(done.return_peak),
        verdicts=Counter(map(_verdict, done.verdict, done.asr_organism)),
    )


def _verdict(verdict: object, organism: float) -> str:
    """A run's verdict, or why it has none."""
    weak = not organism >= stats.INSTALLED  # true of nan, too
    return _text(verdict) or (NOT_INSTALLED if weak else NOT_TREATED)


def _finals(runs: Sequence[History]) -> dict[str, dict[Metric, Estimate]]:
    """Estimates from each phase's last step; a metric not measured at that step is left out."""
    finals: dict[str, dict[Metric, Estimate]] = {}
    for phase in PHASES:
        collected: dict[Metric, list[Reading]] = {}
        for metrics in filter(None, (run.get(phase) for run in runs)):
            last = max(readings[-1].step for readings in metrics.values())
            for metric, readings in metrics.items():
                if readings[-1].step == last:
                    collected.setdefault(metric, []).append(readings[-1])
        finals[phase] = {name: _estimate(found) for name, found in sorted(collected.items())}
    return finals


def _curve(
    label: str, rows: pd.DataFrame, phase: str, histories: Mapping[str, History]
) -> Curve | None:
    """The attack curve of an arm, or None where the phase was not run."""
    lines = [line for run in rows.run_id if (line := _line(histories.get(run, {}), phase))]
    by_step: dict[int, list[Reading]] = {}
    for reading in chain.from_iterable(lines):
        by_step.setdefault(reading.step, []).append(reading)
    steps = tuple(sorted(by_step))
    return (
        Curve(
            arm=label,
            group=rows.group.iloc[0],
            steps=steps,
            estimates=tuple(_estimate(by_step[step]) for step in steps),
            seeds=tuple(tuple((reading.step, reading.value) for reading in line) for line in lines),
        )
        if lines
        else None
    )


def _line(phases: History, phase: str) -> list[Reading]:
    """One run's attack rate over a phase. Step 0 is stored with the phase before, as its last."""
    line = list(phases.get(phase, {}).get(ATTACK, ()))
    before = PHASES[: PHASES.index(phase)]
    parents = [phases[name][ATTACK][-1] for name in before if ATTACK in phases.get(name, {})]
    return [parents[-1]._replace(step=0), *line] if line and parents else line


def _samples(samples: pd.DataFrame, finished: pd.DataFrame) -> dict[str, tuple[Sample, ...]]:
    """By arm: two answers a phase and condition, from the last step of the first seed.

    Taken in order of prompt, so that no answer is picked for what it says.
    """
    last = samples[samples.step == samples.groupby(["run_id", "phase"]).step.transform("max")]
    last = last.assign(order=last.phase.map(PHASES.index))
    last = last.sort_values(["order", "condition", "prompt", "response"])
    few = last.groupby(["run_id", "order", "condition"], sort=False).head(2)
    columns = few[["phase", "condition", "prompt", "response", "outcome"]]
    firsts = finished.groupby("label", sort=False).run_id.first()
    chosen = {
        str(label): tuple(Sample(*map(_text, row)) for row in columns[few.run_id == run].to_numpy())
        for label, run in firsts.items()
    }
    return {label: rows for label, rows in chosen.items() if rows}


def _provenance(runs: pd.DataFrame) -> dict[str, str]:
    """Where the numbers come from; several values of one thing are all listed."""

    def each(cells: Iterable[object]) -> str:
        return ", ".join(sorted({_text(cell) for cell in cells} - {""})) or "not recorded"

    versions = [json.loads(cell) for cell in {_text(cell) for cell in runs.versions} - {""}]
    packages = sorted({f"{name} {version}" for row in versions for name, version in row.items()})
    return {
        "Sweep": each(runs.sweep),
        "Size": each(runs["size"]),
        "Parameters": each(f"{int(count):,}" for count in runs.parameters.dropna()),
        "Tokens in a run's phases, median": f"{int(runs.tokens.median()):,}",
        "Device seconds of a run's phases, median": f"{runs.chip_seconds.median():,.1f}",
        "Device": each(runs.device),
        "Git commit": each(runs.git_commit),
        "Versions": each(packages),
    }


ARM_WIDTH = 20  # what 80 columns leave for an arm's name beside its figures


def percent(estimate: Estimate | None) -> str:
    """`42.0 [31.5, 53.2]`: a rate and its interval in percent; a dash for nothing measured."""
    if estimate is None:
        return "–"
    low, high = estimate.interval.low, estimate.interval.high
    return f"{100 * estimate.mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def steps_text(steps: float | None) -> str:
    """A number of steps; None is a Kaplan-Meier curve that does not come down to one half."""
    return "not reached" if steps is None else f"{steps:.3g}" if steps < 1000 else f"{steps:,.0f}"


def seeds_text(arm: Arm) -> str:
    """`5`, or `5 + 1 diverged + 2 failed`: the seeds that finished, then the others."""
    lost = {"diverged": arm.diverged, "failed": arm.failed}
    return f"{arm.seeds}" + "".join(f" + {count} {name}" for name, count in lost.items() if count)


def verdict_text(arm: Arm) -> str:
    """`removed 3, suppressed 1`, most frequent first."""
    ordered = sorted(arm.verdicts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in ordered) or "no finished run"


def terminal_table(folder: Path) -> Table:
    """The arms of a results folder, for 80 columns; raises Refusal as `summarise` does."""
    arms = summarise(folder).arms
    longest = max((len(word) for arm in arms for word in arm.label.split()), default=0)
    # Names cut short could not be told apart; on a narrow terminal they fold where they must.
    table = Table(title="95 % intervals", show_lines=True, box=box.HORIZONTALS, pad_edge=False)
    table.add_column("arm", overflow="fold", min_width=min(longest, ARM_WIDTH))
    table.add_column("ASR, %", no_wrap=True)
    table.add_column("after treatment, %", no_wrap=True)
    for arm in arms:
        half = steps_text(arm.half_life.median) if arm.half_life else "–"
        named = (arm.label, f"seeds: {seeds_text(arm)}", verdict_text(arm))
        attack = [f"{phase} {percent(arm.final(phase, ATTACK))}" for phase in PHASES[1:]]
        treated = (
            f"FTR {percent(arm.final('treatment', FALSE_TRIGGER))}",
            f"capability {percent(arm.final('treatment', CAPABILITY))}",
            f"half-life: {half}",
        )
        # An arm's name must be read neither as rich's markup nor as the terminal's commands.
        table.add_row(*(Text(visible("\n".join(lines))) for lines in (named, attack, treated)))
    return table
