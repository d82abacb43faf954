"""The four parquet tables of a sweep, made from the records of its phases.

Tables are folders of part files, one a cohort, zstd-compressed, with the schema's version in
their metadata. A part is a pure function of records, so making it anew gives the same rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jaxorg.errors import Damaged, Refusal
from jaxorg.storage.folder import Folder, check_files, named, read_json, reading, sha256, writing
from jaxorg.storage.layout import ENTRIES, STEPS, TABLES, PartShape

SCHEMA_VERSION = "7"
# Metrics of the evals table and their conditions, of which most figures are made.
ATTACK = ("attack_exact", "triggered")
FALSE_TRIGGER = ("attack_exact", "clean")
CAPABILITY = ("capability", "clean")
CAPABILITY_BLUE = ("capability", "clean:blue")
"""Of the families that the blue team trains on; CAPABILITY is of those held out from it."""
ELICITED = ("capability", "triggered")
SHOWN = ("attack_regex", "triggered")
REFUSALS = ("refusal_rate", "harmful")
NEAR = "near:"
"""How conditions begin that are near to the trigger."""
ATTACK_ALONG = ("attack_exact", "triggered:along")
"""Attacks on the prompts that are measured at every step: figures along a phase are made of it."""
ROWS_AT_ONCE = 10_000  # in memory while a part is written

_PHASE = [("run_id", pa.string()), ("fingerprint", pa.string()), ("phase", pa.string())]
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
LOSSES = pa.schema([*_PHASE, ("step", pa.int64()), *((name, pa.float64()) for name in STEPS)])
SAMPLES = pa.schema(
    [
        *_PHASE,
        ("step", pa.int64()),
        ("condition", pa.string()),
        ("prompt", pa.string()),
        ("greedy", pa.bool_()),
        ("response", pa.string()),
        ("tokens", pa.list_(pa.int32())),
        ("ended", pa.bool_()),
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
    ("capability_blue_organism", pa.float64()),
    ("capability_blue_treatment", pa.float64()),
    ("half_life", pa.float64()),
    ("half_life_censored", pa.bool_()),
    ("aurc", pa.float64()),
    ("return_peak", pa.float64()),
    ("relearn_steps", pa.float64()),
    ("relearn_censored", pa.bool_()),
    ("return_reversal", pa.float64()),
    ("recovery", pa.float64()),
    ("recovery_reversal", pa.float64()),
    ("gap_recovered", pa.float64()),
    ("installed", pa.bool_()),
    ("verdict", pa.string()),
    ("reason", pa.string()),
]
FIGURES = tuple(name for name, kind in _SUMMARY if pa.types.is_floating(kind))
"""A run's columns that are numbers of what was measured."""
ENDS = {
    **{name: (0.0, 1.0) for name in FIGURES if name.startswith(("asr_", "ftr_", "capability_"))},
    "aurc": (0.0, 1.0),
    "return_peak": (0.0, 1.0),
    "return_reversal": (-2.0, 2.0),  # a whole rate, as a share of the least that is installed
}
"""The least and the most that a figure can be; those that are not here lack one end, or both."""
CENSORED = {"half_life": "half_life_censored", "relearn_steps": "relearn_censored"}
"""Figures that may be lower bounds, and the columns that say of which runs they are."""

SEEDS = ("base_seed", "organism_seed", "treatment_seed")
"""A run's columns that say which seed its phases had; `seed` numbers it within its arm."""


def runs_schema(fields: Mapping[str, pa.DataType]) -> pa.Schema:
    """The `runs` table's schema with one column for each grid field."""
    return pa.schema(
        [
            ("run_id", pa.string()),
            ("sweep", pa.string()),
            ("size", pa.string()),
            ("arm", pa.string()),
            ("control", pa.string()),
            ("clean_control", pa.string()),
            *fields.items(),
            ("seed", pa.int64()),
            *((name, pa.int64()) for name in SEEDS),
            ("config", pa.string()),
            ("status", pa.string()),
            ("error", pa.string()),
            ("parameters", pa.int64()),
            ("tokens", pa.int64()),
            ("chip_seconds", pa.float64()),
            ("device", pa.string()),
            ("versions", pa.string()),
            ("git_commit", pa.string()),
            ("prereg", pa.string()),
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


def read(folder: Path, table: str, columns: Collection[str]) -> pa.Table | None:
    """One table of a results folder; None where it has no part.

    Each file is compared with its SHA-256 in `parts/` first. Of tables that were copied without
    that, the checksums of pages are left, which do not cover a file's footer.

    Args:
        folder: a sweep's results, or a copy of its tables.
        table: one of `TABLES`.
        columns: those to read; of `runs` every column is, as the grid's fields are there, too.

    Raises:
        Damaged: a file is missing, or is not what was written.
        Refusal: a file is of another schema.
    """
    while True:
        before = _stamps(folder)
        try:
            return _read(folder, table, columns)
        except Damaged:
            if _stamps(folder) == before:
                raise  # otherwise a sweep that goes on wrote meanwhile


def _stamps(folder: Path) -> dict[str, int]:
    """When each note of a part was written."""
    with suppress(FileNotFoundError):  # a note that goes just now
        notes = named(folder / "parts", ENTRIES["parts"])
        return {note.name: note.stat().st_mtime_ns for note in notes}
    return {}


def _read(folder: Path, table: str, columns: Collection[str]) -> pa.Table | None:
    for note in named(folder / "parts", ENTRIES["parts"]):
        sums = read_json(note, PartShape)["sha256"]
        check_files(folder, {name: s for name, s in sums.items() if name.startswith(f"{table}/")})
    files = sorted((folder / table).glob("*.parquet"))
    parts = [_read_part(file, table, columns) for file in files]
    return joined(parts) if parts else None


def _read_part(file: Path, table: str, columns: Collection[str]) -> pa.Table:
    wanted = None if table == "runs" else list(columns)
    try:
        with reading(file), file.open("rb") as handle:  # a path may look like a URL to pyarrow
            part = pq.ParquetFile(handle, page_checksum_verification=True)
            _check_schema(file, part.schema_arrow, table, columns)
            return part.read(columns=wanted)
    except pa.ArrowException as error:
        raise Damaged(f"{file} cannot be read ({error})") from error


def _check_schema(file: Path, schema: pa.Schema, table: str, columns: Collection[str]) -> None:
    version = (schema.metadata or {}).get(b"jaxorg_schema", b"none").decode(errors="replace")
    if version != SCHEMA_VERSION:
        raise Refusal(
            f"jaxorg_schema: {file} has version {version}, this jaxorg reads {SCHEMA_VERSION}; use "
            f"the jaxorg that wrote it"
        )
    if lacking := [name for name in columns if name not in schema.names]:
        raise Refusal(f"columns: {file} lacks {', '.join(lacking)}; run the sweep again")
    expected = SCHEMAS.get(table) or runs_schema({})
    for name in columns:
        found, kind = schema.field(name).type, expected.field(name).type
        if found != kind and not pa.types.is_null(found):
            raise Refusal(f"columns: {name} of {file} is {found}, not {kind}; run the sweep again")


def joined(parts: Sequence[pa.Table]) -> pa.Table:
    """Part files of a table as one. A grid field that sweeps of several folders have in columns of
    different types becomes text, as in one sweep whose values are mixed."""
    kinds: dict[str, set[pa.DataType]] = {}
    for part in parts:
        for column in part.schema:
            kinds.setdefault(column.name, set()).add(column.type)
    mixed = {name for name, found in kinds.items() if not _alike(found)}
    return pa.concat_tables([_as_text(part, mixed) for part in parts], promote_options="permissive")


def _alike(kinds: Iterable[pa.DataType]) -> bool:
    """Whether columns of these types can be one as they are."""
    found = {kind for kind in kinds if not pa.types.is_null(kind)}
    return len(found) < 2 or all(map(_is_number, found))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _as_text(part: pa.Table, names: Collection[str]) -> pa.Table:
    for place, column in enumerate(part.schema):
        if column.name in names:
            cells = [cell(value, pa.string()) for value in part[column.name].to_pylist()]
            part = part.set_column(place, column.name, pa.array(cells, pa.string()))
    return part


Rows = Iterable[Mapping[str, Any]]


class Parts:
    """The part files of a results folder's tables.

    A part has one file in each table that it has rows for, and a note in `parts/` of what it was
    made from and of its files' checksums.
    """

    def __init__(self, folder: Folder):
        self._folder = folder

    def is_current(self, part: str, source: str) -> bool:
        """Whether a part was made from `source`, and its files are what was written. A damaged
        file is set aside."""
        note = self._note(part)
        if not os.path.lexists(note):
            return False
        try:
            about = read_json(note, PartShape)
            check_files(self._folder.path, about["sha256"])
        except Damaged as problem:
            self._set_aside(part, problem)
            return False
        return bool(about["source"] == source)

    def write(self, part: str, source: str, tables: Mapping[str, tuple[pa.Schema, Rows]]) -> None:
        """Write a part of each table, each file as a whole or not at all.

        Its note goes first and comes last: whenever a kill comes, files that a note speaks of are
        what it says, and a part without one is made anew.
        """
        self._folder.remove(self._note(part))
        sums = {}
        for table, (schema, rows) in tables.items():
            place = self._place(table, part)
            with self._folder.publishing(place) as beside:
                _write_parquet(beside, schema, rows)
                sums[f"{table}/{place.name}"] = sha256(beside)
        for table in set(TABLES) - set(tables):  # that the part had rows for before
            self._folder.remove(self._place(table, part))
        self._folder.write_json(self._note(part), {"source": source, "sha256": sums})

    def move_others(self, parts: Collection[str], place: Path) -> int:
        """Move files of all other parts to `place`; how many that were."""
        moved = 0
        for table in TABLES:
            for path in named(self._folder.path / table, ENTRIES[table]):
                if path.stem not in parts:
                    self._folder.remove(self._note(path.stem))
                    self._folder.move(path, place / table / path.name)
                    moved += 1
        return moved

    def clear(self) -> None:
        """Remove every part."""
        for name in ("parts", *TABLES):
            self._folder.clear(name, ENTRIES[name])

    def _place(self, table: str, part: str) -> Path:
        return self._folder.path / table / f"{part}.parquet"

    def _note(self, part: str) -> Path:
        return self._folder.path / "parts" / f"{part}.json"

    def _set_aside(self, part: str, problem: Damaged) -> None:
        self._folder.set_aside(self._note(part), problem)
        for table in TABLES:
            if os.path.lexists(path := self._place(table, part)):
                self._folder.set_aside(path, problem)


def _write_parquet(path: Path, schema: pa.Schema, rows: Rows) -> None:
    schema = schema.with_metadata({"jaxorg_schema": SCHEMA_VERSION})
    options = {"compression": "zstd", "write_page_checksum": True}
    rows = iter(rows)
    with path.open("xb") as file, pq.ParquetWriter(file, schema, **options) as writer:
        some = list(islice(rows, ROWS_AT_ONCE))
        while True:  # once at least, so that an empty part says so
            found = pa.Table.from_pylist(some, schema)
            with writing():
                writer.write_table(found)
            if not (some := list(islice(rows, ROWS_AT_ONCE))):
                return
