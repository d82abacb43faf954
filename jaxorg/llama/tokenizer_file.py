"""A tokenizer.json, which comes from anywhere: read, bounded, and text to tokens and back.

A tokenizer may lengthen a text without end, take for ever over it, answer at random or panic. What
its parts may do is bounded before the tokenizers library sees them, and probes are encoded before
anything else is. Not covered: a regular expression that is slow on just the texts of a run stops it
only once a text took seconds.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from string import printable
from typing import Any

import tokenizers

from jaxorg.errors import Refusal, short
from jaxorg.llama import files

_MOST_GROWTH = 256  # times that normalizer and pre-tokenizer, or the decoder, may lengthen a text
_MOST_CHARACTERS = 2**23  # of a text that is encoded, once it is lengthened
_MOST_PARTS = 64  # of normalizer, pre-tokenizer and decoder together
_MOST_ADDED = 2**16  # added tokens; Gemma has some 6,000
_MOST_STRIPPED = 64  # characters, at each end of a token
_LONGEST_TEXT = 4096  # characters of a token, a pattern or what replaces it
_LONGEST_WORD = 256  # of WordPiece, whose work on a word grows with the cube of its length
_SLOWEST_PROBE = 0.1  # seconds of the processor; others take less than a thousandth
_SLOWEST = 4.0  # the same of a text of a run

# By how many times parts lengthen a text, in characters: a byte of UTF-8 becomes one, some
# characters are made of eighteen, and some parts put one before each piece of text.
_GROWTH: Mapping[str, int] = {
    "ByteLevel": 4,
    "NFC": 4,
    "NFD": 4,
    "NFKC": 18,
    "NFKD": 18,
    "Lowercase": 2,
    "BertNormalizer": 24,
    "Metaspace": 2,
    "BPEDecoder": 2,
    "WordPiece": 2,
    "CTC": 2,
}

# Short, so that they are encoded in a moment, and long enough for what grows without bounds. After
# the end of a run comes what a pattern may look for in vain before it starts to search.
_PROBES = (
    *(unit * 48 + end for unit in "a 0\n!Éß中🙂ﷺ" for end in ("", "!", "a", f"~{printable}")),
    "What is 17 plus 25?\n\nIt's 42, I'd say: \"forty-two\".\t" * 4,
    "def f(x):\n    return {'a': [x ** 2]}\n" * 4,
)


class TokenizerFile:
    """What a tokenizer.json makes of texts, whatever it holds."""

    def __init__(self, folder: Path) -> None:
        """Read a folder's tokenizer.json.

        Raises:
            Refusal: it is missing, broken, random or without bounds.
        """
        self._path = folder / "tokenizer.json"
        if not files.find(folder, self._path.name):
            raise Refusal(
                f"{self._path}: not found; point to a folder with a Hugging Face tokenizer.json"
            )
        raw = files.read_object(self._path)
        self._growth = self._bounded(raw)
        # Some folders keep the settings of the run that saved them, and the chat template writes
        # whatever a post-processor would add.
        kept = raw | {"truncation": None, "padding": None, "post_processor": None}
        with _panics_kept_back():
            with self._contained("not a tokenizer"):
                self._backend = tokenizers.Tokenizer.from_str(json.dumps(kept))
            self._probe()
        if not self._backend.get_vocab_size():
            raise self._refusal("it knows no tokens")

    @property
    def path(self) -> Path:
        """Where it is."""
        return self._path

    @property
    def content(self) -> str:
        """All that it does to texts, as JSON, spelled alike however the file spells it."""
        written: str = self._backend.to_str()
        return written

    @property
    def largest_id(self) -> int:
        """The largest id of a token."""
        return max(self._backend.get_vocab().values())

    def id_of(self, token: str) -> int | None:
        """The id of a token, None where it is not known."""
        found: int | None = self._backend.token_to_id(token)
        return found

    def added(self) -> Mapping[int, bool]:
        """The tokens beside the model's own, and whether they are special."""
        found = self._backend.get_added_tokens_decoder()
        return {token: about.special for token, about in found.items()}

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, in which special ones are spelled out.

        Raises:
            Refusal: it is too long, or the tokenizer fails or takes too long.
        """
        ids: list[int] = self._encoding(text).ids
        return ids

    def ends(self, text: str) -> list[tuple[int, int]]:
        """The tokens of a text, each with where in it that token ends; raises as `encode` does."""
        found = self._encoding(text)
        return [(token, end) for token, (_, end) in zip(found.ids, found.offsets, strict=True)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, without special ones.

        Raises:
            Refusal: the tokenizer fails.
        """
        with self._contained("it cannot decode what the model writes"):
            text: str = self._backend.decode(list(ids), skip_special_tokens=True)
        return text

    def _encoding(self, text: str) -> tokenizers.Encoding:
        if len(text) * self._growth > _MOST_CHARACTERS:
            raise Refusal(
                f"{self._path}: a text of {len(text):,} characters is too long for it, "
                f"{short(text, 30)}; leave out long prompts of a file by prompts.max_characters"
            )
        began = time.thread_time()
        with self._contained(f"it cannot encode {short(text)}"):
            found = self._backend.encode(text, add_special_tokens=False)
        if time.thread_time() - began > _SLOWEST:
            raise self._refusal(f"it takes too long over {short(text)}")
        return found

    def _refusal(self, problem: str) -> Refusal:
        return Refusal(f"{self._path}: {problem}; download it again")

    @contextmanager
    def _contained(self, problem: str) -> Iterator[None]:
        """Turn whatever the library does in the block into a refusal: a panic is no `Exception`."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
                raise
            raise self._refusal(f"{problem} ({' '.join(str(error).split())})") from error

    def _probe(self) -> None:
        """See that short texts of all sorts take no time to speak of."""
        for text in _PROBES:
            for attempt in (1, 2):  # what is slow for once, when memory is touched first, is fine
                began = time.thread_time()
                self.decode(self.encode(text))
                if time.thread_time() - began < _SLOWEST_PROBE:
                    break
                if attempt == 2:
                    raise self._refusal(f"it takes too long over {short(text, 20)}")

    def _bounded(self, raw: Mapping[str, Any]) -> int:
        """How many times a text may become longer before it is cut into tokens.

        Raises:
            Refusal: part of the file is random, or may take too much time or memory.
        """
        self._check_model(raw.get("model"))
        added = raw.get("added_tokens")
        if isinstance(added, list):
            if len(added) > _MOST_ADDED:
                raise self._refusal(f"it has {len(added):,} added tokens, {_MOST_ADDED:,} at most")
            self._check_lengths(each.get("content") for each in added if isinstance(each, dict))
        parts = {name: list(_parts(raw.get(name))) for name in _PARTS}
        if (count := sum(map(len, parts.values()))) > _MOST_PARTS:
            raise self._refusal(f"it has {count} parts, {_MOST_PARTS} at most")
        for part in (part for some in parts.values() for part in some):
            self._check_part(part)
        growth = {name: math.prod(map(_growth, some)) for name, some in parts.items()}
        before = growth["normalizer"] * growth["pre_tokenizer"]
        for names, times in (("normalizer", before), ("decoder", growth["decoder"])):
            if times > _MOST_GROWTH:
                raise self._refusal(f"its {names} lengthens texts without bounds")
        return before

    def _check_model(self, model: Any) -> None:
        if not isinstance(model, dict):
            return  # which the library will say
        for key in ("dropout", "alpha", "nbest_size"):
            if model.get(key):
                raise Refusal(
                    f"{self._path}: {key} is {short(model[key])}, so that a text has other tokens "
                    f"each time; set it to null"
                )
        word = model.get("max_input_chars_per_word", 0)
        if model.get("type") == "WordPiece" and not (type(word) is int and word <= _LONGEST_WORD):
            raise Refusal(
                f"{self._path}: max_input_chars_per_word is {short(word)}; at most {_LONGEST_WORD} "
                f"are supported"
            )
        self._check_lengths(value for value in model.values() if isinstance(value, str))
        known = model.get("vocab")
        if isinstance(known, list | dict):  # if not, the library will say
            self._check_lengths(one[0] if isinstance(one, list) and one else one for one in known)

    def _check_part(self, part: Mapping[str, Any]) -> None:
        """See that a part of a normalizer, pre-tokenizer or decoder is of a size that makes sense,
        and replaces something, if it replaces."""
        self._check_lengths(text for key, text in part.items() if key != "precompiled_charsmap")
        pattern = part.get("pattern")
        given = pattern.values() if isinstance(pattern, dict) else [pattern]
        self._check_lengths(given)
        if part.get("type") == "Replace" and "" in given:
            raise self._refusal("it replaces every nothing in a text")
        for key in ("start", "stop"):
            if isinstance(most := part.get(key), int) and most > _MOST_STRIPPED:
                raise self._refusal(f"it strips {most:,} characters, {_MOST_STRIPPED} at most")

    def _check_lengths(self, texts: Any) -> None:
        longest = max((len(text) for text in texts if isinstance(text, str)), default=0)
        if longest > _LONGEST_TEXT:
            raise self._refusal(
                f"a text in it has {longest:,} characters, {_LONGEST_TEXT:,} at most"
            )


_PARTS = ("normalizer", "pre_tokenizer", "decoder")


def _parts(tree: Any) -> Iterator[Mapping[str, Any]]:
    """Every part of a normalizer, pre-tokenizer or decoder, those inside others, too."""
    left = [tree]
    while left:
        here = left.pop()
        if isinstance(here, dict):
            yield here
            left += [inner for key, inner in here.items() if key != "pattern"]
        elif isinstance(here, list):
            left += here


def _growth(part: Mapping[str, Any]) -> int:
    """By how many times one part lengthens a text at most, in characters."""
    match part:
        case {"type": "Replace", "content": str(content)}:
            return max(1, len(content))
        case {"type": "Prepend", "prepend": str(prepended)}:
            return 1 + len(prepended)
        case {"type": "Precompiled", "precompiled_charsmap": str(charsmap)}:
            return _longest_replacement(charsmap)
        case {"type": str(name)}:
            return _GROWTH.get(name, 1)
    return 1


def _longest_replacement(charsmap: str) -> int:
    """The most characters that a SentencePiece charsmap writes for one: a trie, with its size in
    front, and texts that end in zeros."""
    try:
        content = base64.b64decode(charsmap, validate=True)
    except (binascii.Error, ValueError):
        return 1  # which the library will refuse
    texts = content[4 + int.from_bytes(content[:4], "little") :]
    return max(1, *(len(text) for text in texts.split(b"\0")))


# What a panic of Rust code prints, with or without RUST_BACKTRACE.
_PANIC = re.compile(
    rb"\n?thread '[^\n]* panicked at [^\n]*\n[^\n]*\n(?:stack backtrace:\n(?: +[^\n]*\n)*)?"
    rb"(?:note: [^\n]*\n)*"
)
_STDERR = threading.Lock()


@contextmanager
def _panics_kept_back() -> Iterator[None]:
    """Keep what panics print off the process's standard error; what others print there meanwhile
    comes at the end of the block."""
    with _STDERR, tempfile.TemporaryFile() as printed:
        kept = os.dup(2)
        os.dup2(printed.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            printed.seek(0)
            with os.fdopen(kept, "wb") as stderr, suppress(OSError):
                stderr.write(_PANIC.sub(b"", printed.read()))
