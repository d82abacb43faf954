"""The parquet tables of a results folder, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from jaxorg.errors import Damaged, Refusal
from jaxorg.stats import Count
from jaxorg.storage import results
from jaxorg.summary.merged import once, untold
from jaxorg.sweepfile import labels
from jaxorg.sweepfile.seeds import Seeds

PHASES = labels.PHASE_ORDER

RUNS = results.runs_schema({}).names
EVALS = ["run_id", "phase", "step", "metric", "condition", "k", "n", "value"]
SAMPLES = ["run_id", "phase", "step", "condition", "prompt", "greedy", "response", "outcome"]

_ADDED = ("label", "group", "order")

Metric: TypeAlias = tuple[str, str]
"""A metric and the condition it was measured under."""


class Reading(NamedTuple):
    """One measurement of one run; `tally` is None for a mean that counts nothing. `n` is what it
    was measured on."""

    step: int
    tally: Count | None
    value: float
    n: int


History: TypeAlias = Mapping[str, Mapping[Metric, Sequence[Reading]]]
"""One run's readings by phase and metric, in order of step."""


def read_table(
    folder: Path, table: str, columns: Sequence[str], required: bool = True
) -> pd.DataFrame:
    """All part files of one table; of `runs` every column, as the grid's fields are there too. Of
    results that were copied together, what several have alike stands there once.

    Args:
        folder: a sweep's results.
        table: `runs`, `evals`, `losses` or `samples`.
        columns: those that are wanted.
        required: whether it must be there; otherwise it may come without rows.

    Raises:
        Refusal: there is none, it is damaged or of another schema, or one run has different
            results.
    """
    if not folder.is_dir():
        raise Refusal(f"DIR: {folder} is not a folder; give a sweep's results folder")
    try:
        found = results.read(folder, table, columns)
    except Damaged as problem:
        raise Refusal(
            f"DIR: {problem}; run the sweep again, which makes it anew, or copy it again"
        ) from problem
    if found is None and required:
        raise Refusal(f"DIR: {folder} has no {table}/*.parquet; give a sweep's results folder")
    frame: pd.DataFrame = pd.DataFrame(columns=columns) if found is None else found.to_pandas()
    return once(frame, table)


def grid_fields(runs: pd.DataFrame) -> list[str]:
    """The columns that hold what the sweep's grid sets."""
    return [name for name in runs.columns if name not in (*RUNS, *_ADDED)]


def label_runs(
    runs: pd.DataFrame, axes: Sequence[Mapping[str, Sequence[Any]]] = ()
) -> pd.DataFrame:
    """Add `label` (the arm's name, unique) and `group` (its treatment); sort for showing: as values
    stand on the sweep's axes, where these are known, and else by size.

    Results of several sweeps, sizes or controls may lie in one folder under one arm name, and with
    settings that the grid does not sweep: what differs goes into the label, so that only equal runs
    are pooled, and such settings become fields of the grid, too.
    """
    named = _labels(runs)
    apart = untold([text(config) for config in runs.config], named)
    columns = {path: _column(values) for path, values in apart.items() if path not in runs}
    runs = runs.assign(**{path: cells.set_axis(runs.index) for path, cells in columns.items()})
    grid = grid_fields(runs)
    beside = _beside(runs, named, apart)
    known = {path: values for axis in axes for path, values in axis.items()}
    first = ("treatment.label", "treatment.kind")
    treatments = [name for name in grid if name.startswith("treatment") and name not in first]
    textual = [
        name for name in (*first, *treatments) if name in grid and runs[name].map(text).any()
    ]
    return runs.assign(
        label=[" · ".join(filter(None, row)) for row in zip(named, beside, strict=True)],
        group=runs[textual[0]].map(text) if textual else "",
        order=[
            (
                text(row["control"]),
                *(_place(row[name], known.get(name, ())) for name in grid),
                row["seed"],
            )
            for row in runs.to_dict("records")
        ],
    ).sort_values(["order", "run_id"])


def _labels(runs: pd.DataFrame) -> list[str]:
    """What the grid, and the columns beside it, say of each run."""
    parts = pd.DataFrame(index=runs.index)
    for name in ("sweep", "size", "arm", "control"):
        if name == "arm" or runs[name].nunique() > 1:
            parts[name] = runs[name].map(text)
    if "control" in parts:
        parts["control"] = parts.control.map(lambda name: name and f"{name} control")
    return [" · ".join(filter(None, row)) or "all runs" for row in parts.to_numpy()]


def _beside(
    runs: pd.DataFrame, named: Sequence[str], apart: Mapping[str, Sequence[Any]]
) -> list[str]:
    """What stands beside the label of each run where runs of several settings have it: the names
    that people gave them, where these tell all apart, and else what differs."""
    grid = grid_fields(runs)
    names = labels.short_names(grid)
    titles = runs[[name for name in grid if name.endswith(".label")]].map(text).to_numpy()
    beside = np.array(
        [
            labels.phrase({p: each[n] for p, each in apart.items() if each[n] is not None}, names)
            for n in range(len(runs))
        ],
        dtype=object,
    )
    for rows in pd.Series(named).groupby(named).indices.values():
        if len({*beside[rows]}) == 1:
            beside[rows] = ""
            continue
        differ = (titles[rows] != titles[rows[0]]).any(axis=0)
        given = [" × ".join(row) for row in titles[rows][:, differ]]
        pairs = {*zip(given, beside[rows], strict=True)}
        if len({*given}) == len({*beside[rows]}) == len(pairs):
            beside[rows] = given
    return list(beside)


def _column(values: Sequence[Any]) -> pd.Series[Any]:
    """Settings of runs as a column of the `runs` table holds them."""
    kind = results.field_type(values)
    return pa.array([results.cell(value, kind) for value in values], kind).to_pandas()


def seeds_of(runs: pd.DataFrame) -> list[Seeds]:
    """The seeds of each run's phases."""
    return [Seeds(*map(int, row)) for row in runs[[*results.SEEDS]].to_numpy()]


def seed_text(number: int, seeds: Seeds) -> str:
    """`6`, or with crossed seeds `6: base 0, organism 1, treatment 2`."""
    of = ", ".join(f"{name} {seed}" for name, seed in seeds._asdict().items())
    return f"{number}: {of}" if {*seeds} != {number} else f"{number}"


def text(cell: object) -> str:
    """A cell as text; an empty string for a missing one, which pandas makes None or nan."""
    return cell if isinstance(cell, str) else ""


def holds(cell: Any, value: Any) -> bool:
    """Whether a cell of the `runs` table holds a value of the grid."""
    if value is None:
        return bool(pd.isna(cell))
    if isinstance(cell, str):
        return cell == (value if isinstance(value, str) else json.dumps(value))
    return bool(pd.notna(cell) and cell == value)


def _place(cell: Any, values: Sequence[Any]) -> tuple[int, float, str]:
    """A key that sorts cells as values of an axis, then numbers by size, then texts, then missing
    cells."""
    for number, value in enumerate(values):
        if holds(cell, value):
            return -1, number, ""
    if isinstance(cell, str):
        return 1, 0.0, cell
    return (2, 0.0, "") if pd.isna(cell) else (0, float(cell), "")


def histories(evals: pd.DataFrame) -> Mapping[str, History]:
    """The readings of each run."""
    found: dict[str, dict[str, dict[Metric, list[Reading]]]] = {}
    ordered = evals.sort_values("step")[EVALS].itertuples(index=False, name=None)
    for run, phase, step, metric, condition, k, n, value in ordered:
        tally = None if pd.isna(k) else (int(k), int(n))
        reading = Reading(int(step), tally, float(value), int(n))
        phases = found.setdefault(run, {})
        phases.setdefault(phase, {}).setdefault((metric, condition), []).append(reading)
    return found
