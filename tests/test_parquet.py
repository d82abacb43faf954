"""Parquet files of others: what they hold comes out, and none takes more than bounded memory."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxorg.data.prompts import Prompts
from jaxorg.errors import Refusal
from jaxorg.storage import parquet, thrift

ROWS = [{"prompt": f"say {i % 100} {'x' * (i % 50)}", "answer": f"it is {i}"} for i in range(3000)]
MOST = 200  # MB beyond what the imports take


def rows(path: Path, longest: int = 2**24) -> list[dict[str, Any]]:
    return list(parquet.rows(path, lambda names: names, 10_000, longest))


WRITTEN: Mapping[str, dict[str, Any]] = {
    "snappy": {"compression": "snappy"},
    "zstd": {"compression": "zstd"},
    "gzip": {"compression": "gzip"},
    "unpacked": {"compression": "none"},
    "newer pages": {"data_page_version": "2.0"},
    "no dictionary": {"use_dictionary": False},
    "lengths apart": {
        "use_dictionary": False,
        "column_encoding": dict.fromkeys(ROWS[0], "DELTA_LENGTH_BYTE_ARRAY"),
    },
    "many groups": {"row_group_size": 7},
    "small pages": {"data_page_size": 100, "dictionary_pagesize_limit": 200, "write_batch_size": 9},
    "checksums": {"write_page_checksum": True},
}


@pytest.mark.parametrize("how", WRITTEN.values(), ids=WRITTEN)
def test_rows_come_out_however_they_were_written(tmp_path: Path, how: dict[str, Any]) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet", **how)
    assert rows(tmp_path / "a.parquet") == ROWS


def test_nested_and_empty_rows_come_out(tmp_path: Path) -> None:
    turns = [[{"role": "user", "content": f"say {i}"}] * (i % 4) for i in range(500)]
    nested = [{"n": i, "turns": said if i % 7 else None} for i, said in enumerate(turns)]
    pq.write_table(pa.Table.from_pylist(nested), tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet") == nested
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "b.parquet")
    assert rows(tmp_path / "b.parquet") == []


def again(text: str, count: int) -> pa.Array:
    """A text that stands `count` times and is stored once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([text]))


def one_row(values: pa.Array) -> pa.Array:
    """A row with a list of all `values`."""
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def beside(column: pa.Array) -> pa.Table:
    return pa.table({"prompt": column, "answer": pa.array(["a"] * len(column))})


# Tables of a gigabyte or so, each in a file of some kilobytes, and whether texts are stored once.
BOMBS: Mapping[str, tuple[Callable[[], pa.Table], bool]] = {
    "a long list of nothing": (lambda: beside(one_row(pa.nulls(2**25, pa.string()))), True),
    "a long text again and again": (lambda: beside(again("a" * (2**24 + 1), 64)), True),
    "a long text in a list": (lambda: beside(one_row(again("a" * 2**20, 500))), True),
    "a page of one letter": (lambda: beside(pa.array(["a" * 2**27])), False),
    "beginnings again and again": (lambda: beside(pa.array(["a" * 2**20] * 300)), False),
}

READ = """
import sys
from memory import resident
from jaxorg.data.prompts import Prompts
from jaxorg.errors import Refusal

before = resident("VmHWM")
try:
    Prompts(source=sys.argv[1]).items("train", 1, 0, "test")
except Refusal as refusal:
    print(round(resident("VmHWM") - before), refusal)
"""


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_takes_little_memory(tmp_path: Path, name: str) -> None:
    make, dictionary = BOMBS[name]
    path = tmp_path / "bomb.parquet"
    encoding = {"prompt": "DELTA_BYTE_ARRAY"} if name.startswith("beginnings") else None
    pq.write_table(
        make(),
        path,
        compression="zstd",
        use_dictionary=dictionary,
        column_encoding=encoding,
        dictionary_pagesize_limit=2**30,
    )
    assert path.stat().st_size < 30_000
    command = [sys.executable, "-c", READ, path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    peak, _, said = done.stdout.partition(" ")
    assert said.startswith(f"prompts.source: {path} cannot be read ("), done.stderr
    assert said.count("\n") == 1
    assert int(peak) < MOST


def test_a_record_may_be_as_long_as_one_of_json(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    long = [{"prompt": "x" * size, "answer": "a"} for size in (10, 5000, 20, 9000)]
    pq.write_table(pa.Table.from_pylist(long), path)
    assert rows(path, longest=10_000) == long
    with pytest.raises(parquet.ParquetError, match="a record of more than 8,000 bytes"):
        rows(path, longest=8000)


def test_columns_that_are_not_asked_for_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.Table.from_pylist(ROWS).append_column(
        "id", pa.array([b"0" * 16] * 3000, pa.binary(16))
    )
    pq.write_table(table, path)
    assert len(Prompts(source=str(path)).items("train", 50, 0, "test")) == 50
    with pytest.raises(Refusal, match="column 'id' holds no text"):
        Prompts(source=str(path), answer="id").items("train", 1, 0, "test")


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    column = pa.array(["a"])
    pq.write_table(pa.table([column] * 3, ["prompt", "answer", "prompt"]), path)
    with pytest.raises(Refusal, match="column 'prompt' stands 2 times"):
        Prompts(source=str(path)).items("train", 1, 0, "test")


def test_damaged_headers_are_refused_and_end_nothing(tmp_path: Path) -> None:
    """Whatever byte is another: rows, or a refusal that a person can read."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS[:3]), path, compression="none")
    content = path.read_bytes()
    for place in range(4, len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        try:
            Prompts(source=str(path), max_characters=place + 1).items("train", 0, 0, "test")
        except Refusal as refusal:
            assert str(refusal).startswith("prompts.")


NO_HEADERS: Mapping[str, bytes] = {
    "cut off": bytes([0x15]),
    "a field twice": bytes([0x15, 2, 0x05, 2, 4, 0]),
    "an unknown kind": bytes([0x1E, 0]),
    "a list without end": bytes([0x19, 0xF5, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F]) + bytes(5000),
    "a number without end": bytes([0x15] + [0xFF] * 100),
    "structs in structs": bytes([0x1C] * 100_000),
}


@pytest.mark.parametrize("data", NO_HEADERS.values(), ids=NO_HEADERS)
def test_what_is_no_header_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(thrift.ThriftError, match="header"):
        thrift.read(data, 0, 1000)


def test_a_header_is_read_to_its_end() -> None:
    header = bytes([0x15, 3, 0x18, 2, 65, 66, 0x1C, 0x15, 8, 0, 0x11, 0, 99])
    assert thrift.read(header, 0, 5) == ({1: -2, 2: None, 3: {1: 4}, 4: True}, len(header) - 1)
