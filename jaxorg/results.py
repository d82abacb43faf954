"""The four parquet tables of a sweep, made from the records of its phases.

Tables are folders of part files, one a cohort, zstd-compressed, with the schema's version in
their metadata. A part is a pure function of records, so writing it again gives the same rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA_VERSION = "1"
TABLES = ("runs", "evals", "losses", "samples")

_PHASE = [("run_id", pa.string()), ("lineage", pa.string()), ("phase", pa.string())]
EVALS = pa.schema(
    [
        *_PHASE,
        ("step", pa.int64()),
        ("tokens", pa.int64()),
        ("metric", pa.string()),
        ("condition", pa.string()),
        ("k", pa.int64()),
        ("n", pa.int64()),
        ("value", pa.float64()),
    ]
)
LOSSES = pa.schema([*_PHASE, ("step", pa.int64()), ("loss", pa.float64())])
SAMPLES = pa.schema(
    [
        *_PHASE,
        ("step", pa.int64()),
        ("condition", pa.string()),
        ("prompt", pa.string()),
        ("response", pa.string()),
        ("outcome", pa.string()),
    ]
)
SCHEMAS = {"evals": EVALS, "losses": LOSSES, "samples": SAMPLES}

_SUMMARY = [
    ("asr_organism", pa.float64()),
    ("asr_treatment", pa.float64()),
    ("asr_reversal", pa.float64()),
    ("ftr_organism", pa.float64()),
    ("ftr_treatment", pa.float64()),
    ("ftr_reversal", pa.float64()),
    ("capability_base", pa.float64()),
    ("capability_organism", pa.float64()),
    ("capability_treatment", pa.float64()),
    ("capability_reversal", pa.float64()),
    ("half_life", pa.float64()),
    ("half_life_censored", pa.bool_()),
    ("aurc", pa.float64()),
    ("return_peak", pa.float64()),
    ("verdict", pa.string()),
]


def runs_schema(fields: Mapping[str, pa.DataType]) -> pa.Schema:
    """The `runs` table's schema with one column for each grid field."""
    return pa.schema(
        [
            ("run_id", pa.string()),
            ("sweep", pa.string()),
            ("size", pa.string()),
            ("arm", pa.string()),
            ("control", pa.string()),
            *fields.items(),
            ("seed", pa.int64()),
            ("config", pa.string()),
            ("status", pa.string()),
            ("error", pa.string()),
            ("parameters", pa.int64()),
            ("tokens", pa.int64()),
            ("chip_seconds", pa.float64()),
            ("device", pa.string()),
            ("versions", pa.string()),
            ("git_commit", pa.string()),
            *_SUMMARY,
        ]
    )


def field_type(values: Iterable[Any]) -> pa.DataType:
    """The column type that holds every value of a grid field; text where they are mixed."""
    kinds = {type(value) for value in values} - {type(None)}
    if kinds <= {bool}:
        return pa.bool_()
    if kinds <= {int}:
        return pa.int64()
    if kinds <= {int, float}:
        return pa.float64()
    return pa.string()


def cell(value: Any, kind: pa.DataType) -> Any:
    """A grid value as a cell of its column; what is no text becomes JSON in a text column."""
    if value is None or not pa.types.is_string(kind) or isinstance(value, str):
        return value
    return json.dumps(value)


def write_part(
    folder: Path, table: str, part: str, schema: pa.Schema, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write one part file of a table as a whole, or not at all."""
    schema = schema.with_metadata({"jaxorg_schema": SCHEMA_VERSION})
    place = folder / table / f"{part}.parquet"
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f".{place.name}.{os.getpid()}")
    pq.write_table(pa.Table.from_pylist(list(rows), schema), beside, compression="zstd")
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.rename(place)


def drop_other_parts(folder: Path, parts: Sequence[str]) -> None:
    """Remove part files that belong to no cohort of the sweep as it is now."""
    for table in TABLES:
        for path in (folder / table).glob("*.parquet"):
            if path.stem not in parts:
                path.unlink()
