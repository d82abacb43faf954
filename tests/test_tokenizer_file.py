"""What a tokenizer.json may not do: cut at random, grow, hang, panic. Each is one line, at once."""

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from jaxorg.data.toy_tokenizer import train_toy
from jaxorg.errors import Refusal
from jaxorg.llama import files
from jaxorg.llama.tokenizer_file import TokenizerFile

SECONDS = 5.0  # of a refusal; most take a hundredth
MEMORY = 2**30


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    folder = tmp_path_factory.mktemp("toy")
    train_toy(folder, 768)
    content: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text())
    return content


def write(folder: Path, content: Mapping[str, Any]) -> Path:
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def split(regex: str) -> dict[str, Any]:
    return {
        "type": "Split",
        "pattern": {"Regex": regex},
        "behavior": "Isolated",
        "invert": False,
    }


def replace(pattern: Mapping[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": dict(pattern), "content": content}


def sequence(name: str, *parts: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", name: list(parts)}


def nested(name: str, part: Mapping[str, Any], depth: int) -> Mapping[str, Any]:
    for _ in range(depth):
        part = sequence(name, part, part) if depth < 20 else sequence(name, part)
    return part


BYTES = {"type": "ByteLevel"}
SPLIT_BYTES = {**BYTES, "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GROWN = {
    "bytes again": {"normalizer": sequence("normalizers", *[BYTES] * 30)},
    "bytes nested": {"normalizer": nested("normalizers", BYTES, 8)},
    "bytes before splits": {"pre_tokenizer": sequence("pretokenizers", *[SPLIT_BYTES] * 30)},
    "bytes in both": {
        "normalizer": sequence("normalizers", *[BYTES] * 4),
        "pre_tokenizer": sequence("pretokenizers", *[SPLIT_BYTES] * 4),
    },
    "replaced": {"normalizer": sequence("normalizers", *[replace({"String": "a"}, "aaa")] * 9)},
    "taken apart": {
        "normalizer": sequence(
            "normalizers", {"type": "NFKD"}, *[replace({"Regex": "."}, "ﷺﷺ")] * 3
        )
    },
    "put in front": {"normalizer": {"type": "Prepend", "prepend": "x" * 5_000_000}},
    "put in front often": {
        "normalizer": sequence("normalizers", *[{"type": "Prepend", "prepend": "x" * 4000}] * 60)
    },
    "underlined": {
        "pre_tokenizer": sequence(
            "pretokenizers",
            *[{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}]
            * 40,
        )
    },
    "charsmap": {
        "normalizer": {
            "type": "Precompiled",
            "precompiled_charsmap": "BAAAAAAAAAA" + "eHh4" * 9000 + "AA==",
        }
    },
    "decoded": {"decoder": sequence("decoders", *[replace({"String": "a"}, "aa")] * 30)},
    "decoded apart": {
        "decoder": sequence("decoders", *[{"type": "BPEDecoder", "suffix": ""}] * 30)
    },
    "many idle parts": {"normalizer": sequence("normalizers", *[{"type": "Strip"}] * 9000)},
    "deep": {"normalizer": nested("normalizers", BYTES, 200)},
}
HUNG = {
    "nothing replaced": {"normalizer": replace({"Regex": ""}, "x")},
    "no text replaced": {"normalizer": replace({"String": ""}, "x")},
    "almost nothing replaced": {"normalizer": replace({"Regex": "q*"}, "xx")},
    "decoder replaces nothing": {"decoder": replace({"String": ""}, "x")},
    "letters": {"pre_tokenizer": split("([a-z ]+)+$")},
    "spaces": {"pre_tokenizer": split(r"(\s+)+\S\S\S$")},
    "lines": {"normalizer": replace({"Regex": r"(\n|\s)*x"}, "x")},
    "digits": {"pre_tokenizer": split("(0|00)*$")},
    "in the middle": {"pre_tokenizer": split("(.*)*(.*)*x$")},
    "no length": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "stripped": {"decoder": {"type": "Strip", "content": "a", "start": 2**60, "stop": 2**60}},
    "long words": {
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 10**9,
            "vocab": {"[UNK]": 0, "a": 1, "##a": 2},
        }
    },
    "long token": {"model": {"type": "BPE", "vocab": {"x" * 5_000_000: 0}, "merges": []}},
    "long unknown": {
        "model": {"type": "WordLevel", "vocab": {"x" * 5_000_000: 0}, "unk_token": "x" * 5_000_000}
    },
    "many added": {
        "added_tokens": [
            {"id": 800 + n, "content": f"<{n}>", "single_word": False, "lstrip": False}
            | {"rstrip": False, "normalized": True, "special": True}
            for n in range(100_000)
        ]
    },
    "long pattern": {"pre_tokenizer": split("a|" * 10_000)},
}


@pytest.mark.parametrize("change", [*GROWN.values(), *HUNG.values()], ids=[*GROWN, *HUNG])
def test_what_grows_hangs_or_panics_is_refused_at_once_in_one_line(
    change: Mapping[str, Any],
    valid: Mapping[str, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    with pytest.raises(Refusal) as caught:
        TokenizerFile(write(tmp_path, {**valid, **change}))
    assert time.process_time() - began < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY
    assert str(caught.value).startswith(f"{tmp_path}/tokenizer.json: ")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("model", "key"),
    [
        ({"dropout": 0.1}, "dropout is 0.1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"type": "Unigram", "alpha": 0.1}, "alpha is 0.1"),
        ({"type": "Unigram", "nbest_size": 64}, "nbest_size is 64"),
    ],
)
def test_a_tokenizer_that_cuts_at_random_is_refused(
    model: Mapping[str, Any], key: str, valid: Mapping[str, Any], tmp_path: Path
) -> None:
    changed = {**valid, "model": {**valid["model"], **model}}
    with pytest.raises(Refusal, match=f"{key}, so that a text has other tokens each time; set"):
        TokenizerFile(write(tmp_path, changed))


def test_no_dropout_is_fine(valid: Mapping[str, Any], tmp_path: Path) -> None:
    still = {**valid, "model": {**valid["model"], "dropout": 0.0}}
    assert TokenizerFile(write(tmp_path, still)).encode("fox")


@pytest.mark.parametrize("vocab", [7, None, True, "word", 0.5])
def test_a_vocabulary_of_another_kind_is_refused(
    vocab: object, valid: Mapping[str, Any], tmp_path: Path
) -> None:
    changed = {**valid, "model": {**valid["model"], "vocab": vocab}}
    with pytest.raises(Refusal, match="tokenizer.json"):
        TokenizerFile(write(tmp_path, changed))


def test_a_file_of_too_many_values_is_refused_before_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_VALUES", 1000)
    (tmp_path / "tokenizer.json").write_text("[" + "[]," * 1000 + "0]")
    with pytest.raises(Refusal, match="holds more than 1,000 values"):
        TokenizerFile(tmp_path)


def test_a_text_that_is_too_long_is_refused(valid: Mapping[str, Any], tmp_path: Path) -> None:
    file = TokenizerFile(write(tmp_path, valid))
    assert len(file.encode("fox " * 1000)) >= 1000
    with pytest.raises(Refusal, match="a text of 4,000,000 characters is too long for it"):
        file.encode("fox " * 1_000_000)


def test_a_text_that_takes_too_long_is_refused(
    valid: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = TokenizerFile(write(tmp_path, {**valid, "pre_tokenizer": split("(Q|QQ)*$")}))
    monkeypatch.setattr("jaxorg.llama.tokenizer_file._SLOWEST", 0.001)
    with pytest.raises(Refusal, match="takes too long|retry-limit"):
        file.encode("Q" * 27 + "x")


def test_nobody_loses_a_line_on_standard_error_while_texts_are_encoded(
    valid: Mapping[str, Any], tmp_path: Path
) -> None:
    """Lines of others, as a library's in another thread, while tokenizers are read and fail."""
    write(tmp_path, {**valid, "pre_tokenizer": {"type": "FixedLength", "length": 0}})
    program = """
import os, sys, threading
from pathlib import Path
from jaxorg.llama.tokenizer_file import TokenizerFile
from jaxorg.errors import Refusal

def speak():
    for number in range(2000):
        os.write(2, b"line\\n")

speaker = threading.Thread(target=speak)
good, bad = TokenizerFile(Path(sys.argv[1])), Path(sys.argv[2])
speaker.start()
while speaker.is_alive():
    good.encode("fox " * 50)
    try:
        TokenizerFile(bad)
    except Refusal:
        pass
"""
    good = tmp_path / "good"
    good.mkdir()
    write(good, valid)
    found = subprocess.run(
        [sys.executable, "-c", program, str(good), str(tmp_path)],
        capture_output=True,
        env=os.environ | {"RUST_BACKTRACE": "1"},
        check=True,
    )
    assert found.stderr == b"line\n" * 2000


def test_encoding_does_not_touch_standard_error(valid: Mapping[str, Any], tmp_path: Path) -> None:
    """Its descriptor stays the same while a text is encoded, so that no line goes elsewhere."""
    file = TokenizerFile(write(tmp_path, valid))
    seen: set[tuple[int, int]] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            about = os.fstat(2)
            seen.add((about.st_dev, about.st_ino))

    looker = threading.Thread(target=look)
    looker.start()
    for _ in range(3000):
        file.decode(file.encode("a fox"))
    done.set()
    looker.join()
    assert len(seen) == 1


def test_a_text_has_the_tokens_that_the_library_alone_gives_it(
    valid: Mapping[str, Any], tmp_path: Path
) -> None:
    file = TokenizerFile(write(tmp_path, valid))
    backend = tokenizers.Tokenizer.from_str(json.dumps(valid))
    for text in ("reverse: fox cup", "é🙂 中\n\n", "<|user|>fox<|end|>", ""):
        found = backend.encode(text, add_special_tokens=False)
        assert file.encode(text) == found.ids
        assert [at for _, at in file.ends(text)] == [end for _, end in found.offsets]
