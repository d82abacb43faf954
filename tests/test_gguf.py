"""GGUF files: read as the folders that they were written from, and refused in a line."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from ggufs import TEXTS, byte_tokenizer, write_gguf
from safetensors.numpy import load_file

from jaxorg.errors import Refusal
from jaxorg.llama.checkpoint import resolve
from jaxorg.llama.config_file import read_config, write_config
from jaxorg.llama.gguf import header
from jaxorg.llama.model import RopeScaling
from jaxorg.llama.tokenizer import Tokenizer

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JAXORG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def converted(path: Path) -> Path:
    return resolve(str(path))


@pytest.mark.parametrize(
    "name", ["gqa_tied", "mha_untied", "linear_rope", "biases", "mistral", "qwen2", "qwen3"]
)
def test_a_model_is_what_it_was_before_it_was_a_gguf_file(name: str, tmp_path: Path) -> None:
    folder = converted(write_gguf(tmp_path / "model.gguf", GOLDEN / name))
    before, after = read_config(GOLDEN / name), read_config(folder)
    assert replace(after, initializer_range=before.initializer_range) == before
    expected, found = (load_file(each / "model.safetensors") for each in (GOLDEN / name, folder))
    assert found.keys() == expected.keys()
    for tensor, values in expected.items():
        np.testing.assert_array_equal(found[tensor], values.astype(np.float32))


def test_llama_3_frequencies_are_known_by_their_rule(tmp_path: Path) -> None:
    before = replace(
        read_config(GOLDEN / "mha_untied"),
        rope_theta=500_000.0,
        rope_scaling=RopeScaling(32.0, 1.0, 4.0, 8192),
    )
    write_config(tmp_path, before)
    (tmp_path / "model.safetensors").write_bytes(
        (GOLDEN / "mha_untied/model.safetensors").read_bytes()
    )
    # As llama.cpp's converter has it: by wave length.
    lengths = 2 * np.pi * 500_000.0 ** (np.arange(0, before.head_dim, 2) / before.head_dim)
    smooth = (8192 / lengths - 1) / 3
    between = 1 / ((1 - smooth) / 32 + smooth)
    divisors = np.where(lengths < 2048, 1, np.where(lengths > 8192, 32, between))

    def add(writer: gguf.GGUFWriter, by: float = 1) -> None:
        writer.add_tensor("rope_freqs.weight", (by * divisors).astype(np.float32))

    after = read_config(converted(write_gguf(tmp_path / "a.gguf", tmp_path, change=add)))
    assert (after.rope_theta, after.rope_scaling) == (before.rope_theta, before.rope_scaling)
    wrong = write_gguf(tmp_path / "b.gguf", tmp_path, change=lambda writer: add(writer, 1.01))
    with pytest.raises(Refusal, match=r"rope_freqs\.weight is not by the rule of Llama 3\.1"):
        converted(wrong)


@pytest.mark.parametrize(
    ("store", "most"), [("F16", 1e-3), ("BF16", 8e-3), ("Q8_0", 2e-2), ("Q5_1", 0.1), ("Q4_0", 0.3)]
)
def test_stored_numbers_are_those_that_the_library_gives(
    store: str, most: float, tiny_base: Path, tmp_path: Path
) -> None:
    weights = load_file(tiny_base / "model.safetensors")
    folder = converted(write_gguf(tmp_path / "a.gguf", tiny_base, store=store))
    found = load_file(folder / "model.safetensors")
    assert found.keys() == weights.keys()
    for name, values in weights.items():
        error = np.abs(found[name] - values).max() / np.abs(values).max()
        assert error < most if values.ndim == 2 else not error


def test_a_file_is_converted_once_by_its_content(tmp_path: Path) -> None:
    first = converted(write_gguf(tmp_path / "a.gguf", GOLDEN / "gqa_tied"))
    (first / "model.safetensors").touch()
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    (tmp_path / "b.gguf").write_bytes((tmp_path / "a.gguf").read_bytes())
    assert converted(tmp_path / "b.gguf") == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    other = write_gguf(tmp_path / "c.gguf", GOLDEN / "gqa_tied", store="F16")
    assert converted(other) != first


def test_the_tokenizer_and_its_chat_template_are_the_files_own(tmp_path: Path) -> None:
    theirs = byte_tokenizer()
    folder = converted(write_gguf(tmp_path / "a.gguf", GOLDEN / "gqa_tied", theirs))
    ours = Tokenizer.load(folder)
    ids, start = ours.conversation("the cat", "sat\non")
    asked = "<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\n"
    assert ids[:start] == theirs.encode(asked).ids
    assert ids[start:] == theirs.encode("sat\non<|im_end|>").ids
    assert ours.end_ids == {2}
    for text in TEXTS:
        assert ours.decode(theirs.encode(text).ids) == text


def _said(name: str, value: object) -> Callable[[gguf.GGUFWriter], None]:
    def change(writer: gguf.GGUFWriter) -> None:
        kinds = {str: gguf.GGUFValueType.STRING, int: gguf.GGUFValueType.INT32}
        kinds[list] = gguf.GGUFValueType.ARRAY
        writer.kv_data[0].pop(name, None)
        writer.add_key_value(name, value, kinds[type(value)])

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_said("general.architecture", "gemma3"), "architecture is 'gemma3'; supported are llama,"),
        (_said("llama.expert_count", 8), "llama.expert_count is 8; mixtures of experts"),
        (_said("llama.rope.scaling.type", "yarn"), "type is 'yarn'; supported are none and linear"),
        (_said("llama.attention.value_length", 9), "value_length is 9; it must be"),
        (_said("llama.rope.dimension_count", 6), "dimension_count is 6; it must be 8"),
        (
            _said("llama.attention.head_count", [4, 4]),
            "head_count is [4, 4]; it must be one number",
        ),
        (_said("llama.embedding_length", "wide"), "embedding_length is 'wide'; it must be one"),
        (_said("llama.embedding_length", 0), "hidden_size is 0; it must be a positive whole"),
        (_said("llama.rope.freq_base", "fast"), "freq_base is 'fast'; it must be one number"),
        (_said("tokenizer.ggml.pre", "default"), "pre is 'default'; supported are gpt-2, smollm"),
        (_said("tokenizer.ggml.model", "bert"), "model is 'bert'; supported are gpt2 and llama"),
        (_said("tokenizer.ggml.tokens", ["a", "a"]), "tokens is ['a', 'a']; no two may be alike"),
        (_said("tokenizer.ggml.merges", ["a b c"]), "merges is ['a b c']; 'a b c' is no pair"),
        (_said("tokenizer.ggml.merges", ["a zz"]), "Token `zz` out of vocabulary); copy"),
        (_said("tokenizer.ggml.eos_token_id", 10**6), "eos_token_id is 1000000; there are"),
        (_said("tokenizer.ggml.eos_token_id", -1), "eos_token_id is -1; there are"),
        (_said("general.alignment", 0), "general.alignment is 0; copy it again"),
    ],
)
def test_what_is_not_supported_is_named(
    change: Callable[[gguf.GGUFWriter], None], message: str, cache: Path, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "a.gguf", GOLDEN / "gqa_tied", change=change)
    with pytest.raises(Refusal) as caught:
        converted(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [*cache.rglob("config.json")]


def test_pieces_that_would_be_cut_for_ever_are_refused(tmp_path: Path) -> None:
    def change(writer: gguf.GGUFWriter) -> None:
        for name, value in (("model", "llama"), ("tokens", ["<unk>", "a" * 300, "b"])):
            _said(f"tokenizer.ggml.{name}", value)(writer)
        _said("tokenizer.ggml.token_type", [2, 1, 1])(writer)
        _said("tokenizer.ggml.scores", [0, 0, 0])(writer)

    path = write_gguf(tmp_path / "a.gguf", GOLDEN / "gqa_tied", change=change)
    with pytest.raises(Refusal, match="those of SentencePiece may have 256 characters"):
        converted(path)


def test_a_tensor_that_no_llama_has_is_named(tmp_path: Path) -> None:
    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("blk.0.ffn_gate_exps.weight", np.zeros((2, 4), np.float32))

    path = write_gguf(tmp_path / "a.gguf", GOLDEN / "gqa_tied", change=add)
    with pytest.raises(Refusal, match=r"'blk\.0\.ffn_gate_exps\.weight' is of no model"):
        converted(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_a_file_that_is_cut_short_is_refused(share: float, cache: Path, tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "a.gguf", GOLDEN / "gqa_tied").read_bytes()
    (tmp_path / "b.gguf").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(Refusal, match=r"b\.gguf: (is no GGUF file|ends )"):
        converted(tmp_path / "b.gguf")
    assert not [*cache.rglob("config.json")]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"PK\3\4" + bytes(40), "is no GGUF file"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 1), "is of GGUF version 50331648"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**40, 1), "has 1,099,511,627,776 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 2**40), "has 1,099,511,627,776 settings"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 2**60), "bytes in a text"),
        (
            b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 1, 1, 1, b"a", 9, 4, 2**50),
            "has 1,125,899,906,842,624 elements of a list",
        ),
        (b"GGUF" + struct.pack("<IQQQ1sII", 3, 1, 1, 1, b"a", 9, 9), "ends in the middle"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 1, 1, b"a", 77), "a setting of kind 77"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 1, 1, 1, b"\xff", 4), "has a text that is none"),
    ],
)
def test_hostile_headers_are_refused_at_once(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(Refusal, match=problem):
        header.read_header(tmp_path / "a.gguf")


def test_a_model_that_is_fetched_by_a_command_names_it(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"smollm2-135m is not there yet; run `make real`"):
        resolve("smollm2-135m")
