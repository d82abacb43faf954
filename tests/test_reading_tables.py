"""Tables are compared with their checksums before anything is made of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxorg.errors import Damaged, Refusal
from jaxorg.storage import results
from jaxorg.storage.folder import Folder

PART = "organism-0123456789abcdef"
COLUMNS = results.EVALS.names


def rows(value: float = 0.5) -> Iterator[dict[str, Any]]:
    for step in range(200):
        yield {
            "run_id": f"run-{step % 4}",
            "fingerprint": "l",
            "phase": "organism",
            "step": step,
            "tokens": step,
            "metric": "capability",
            "condition": "clean",
            "k": step % 7,
            "n": 7,
            "value": value,
        }


def write(folder: Path, value: float = 0.5) -> None:
    tables = {"evals": (results.EVALS, rows(value))}
    results.Parts(Folder(folder, print)).write(PART, f"made of {value}", tables)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path


def part(folder: Path) -> Path:
    return folder / "evals" / f"{PART}.parquet"


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_each_changed_bit_of_a_part_is_noticed(folder: Path) -> None:
    whole = part(folder).read_bytes()
    for bit in range(0, 8 * len(whole), 97):
        part(folder).write_bytes(flipped(whole, bit))
        with pytest.raises(Damaged, match=f"{PART}.parquet is not what was written"):
            results.read(folder, "evals", COLUMNS)
    part(folder).unlink()
    with pytest.raises(Damaged, match=f"{PART}.parquet is missing"):
        results.read(folder, "evals", COLUMNS)


def test_tables_without_notes_are_checked_by_their_pages(folder: Path) -> None:
    shutil.rmtree(folder / "parts")
    good = results.read(folder, "evals", COLUMNS)
    assert good is not None and good.num_rows == 200
    whole = part(folder).read_bytes()
    columns = pq.ParquetFile(part(folder)).metadata.row_group(0)
    ends = (columns.column(at) for at in range(columns.num_columns))
    pages = max(one.dictionary_page_offset + one.total_compressed_size for one in ends)
    noticed = 0
    for bit in range(0, 8 * len(whole), 37):
        part(folder).write_bytes(flipped(whole, bit))
        try:
            found = results.read(folder, "evals", COLUMNS)
            assert bit // 8 >= pages or found == good  # flips that change nothing of the data
        except (Damaged, Refusal):
            noticed += bit // 8 < pages
    assert noticed > pages * 8 // 37 * 0.8


def test_a_part_that_a_sweep_replaces_meanwhile_is_read_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, calls = results.check_files, []

    def replaced(place: Path, sums: dict[str, str]) -> None:
        if not calls:
            write(place, value=0.25)
        calls.append(sums)
        check(place, sums)

    monkeypatch.setattr(results, "check_files", replaced)
    found = results.read(folder, "evals", COLUMNS)
    assert found is not None and set(found["value"].to_pylist()) == {0.25}
    assert len(calls) == 2


def test_columns_of_another_type_are_refused(folder: Path) -> None:
    file = part(folder)
    shutil.rmtree(folder / "parts")
    table = pq.read_table(file)
    at = COLUMNS.index("step")
    other = table.set_column(at, "step", table["step"].cast(pa.string()))
    pq.write_table(other, file)
    with pytest.raises(Refusal, match=r"columns: step of .* is string, not int64; run the sweep"):
        results.read(folder, "evals", COLUMNS)
