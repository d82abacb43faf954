"""A GGUF file's vocabulary as a tokenizer.json, and what stands beside one.

The file has tokens, merges or scores, and the name of how texts are cut before; how those of a name
are cut is known from the models' own tokenizers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from jaxorg.errors import Refusal, short
from jaxorg.llama.gguf.header import Header

_CONTROL, _USER_DEFINED = 3, 4  # kinds of tokens: special ones, and others that are never cut
_LONGEST_TOKEN = 4096  # characters
_LONGEST_PIECE, _MOST_PIECES = 256, 2**22  # the same of SentencePiece's, one and all: each is cut
_NAMED = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}

# How words are cut before they are encoded, by tokenizer.ggml.pre.
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_PATTERNS = {
    "llama-bpe": _LETTERS + r"|\p{N}{1,3}" + _REST,
    "qwen2": _LETTERS + r"|\p{N}" + _REST,
    "tekken": (
        f"{_BEFORE}{_UPPER}*{_LOWER}+|{_BEFORE}{_UPPER}+{_LOWER}*"
        r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
}
_SAME = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2"}
_PRE = ("gpt-2", "smollm", *_PATTERNS, *_SAME)


def tokenizer(header: Header) -> Tokenizer:
    """The file's tokenizer.

    Raises:
        Refusal: it is of a sort that is not supported, or broken.
    """
    kind = header.settings.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        _refuse(header, "model", "supported are gpt2 and llama")
    tokens = _strings(header, "tokens")
    ids = {token: number for number, token in enumerate(tokens)}
    if len(ids) < len(tokens) or not tokens or max(map(len, tokens)) > _LONGEST_TOKEN:
        _refuse(header, "tokens", f"no two may be alike, nor have over {_LONGEST_TOKEN} characters")
    kinds = header.settings.get("tokenizer.ggml.token_type") or [1] * len(tokens)
    if not isinstance(kinds, list) or len(kinds) != len(tokens):
        _refuse(header, "token_type", f"it must have {len(tokens)} numbers")
    try:
        made = _bytes(header, ids) if kind == "gpt2" else _pieces(header, ids)
        for number, each in enumerate(kinds):
            if each in (_CONTROL, _USER_DEFINED):
                special = each == _CONTROL
                added = AddedToken(tokens[number], special=special, normalized=False)
                (made.add_special_tokens if special else made.add_tokens)([added])
    except (Refusal, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # what does not fit together: a panic is no `Exception`
        said = " ".join(str(error).split())
        raise Refusal(f"{header.path}: its tokenizer is broken ({said}); copy it again") from error
    return made


def settings(header: Header) -> Mapping[str, Any]:
    """What tokenizer_config.json says of it.

    Raises:
        Refusal: a named token is none.
    """
    found: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    tokens = _strings(header, "tokens")
    for name, theirs in _NAMED.items():
        if (number := _id(header, theirs, len(tokens))) is not None:
            found[f"{name}_token"] = tokens[number]
    template = header.settings.get("tokenizer.chat_template")
    if isinstance(template, str):
        found["chat_template"] = template
    return found


def generation(header: Header) -> Mapping[str, Any]:
    """What generation_config.json says: the tokens that begin and end texts.

    Raises:
        Refusal: one of them is no token.
    """
    known = len(_strings(header, "tokens"))
    begin, pad, *ends = (_id(header, name, known) for name in ("bos", "padding", "eos", "eot"))
    found = {
        "bos_token_id": begin,
        "pad_token_id": pad,
        "eos_token_id": sorted({end for end in ends if end is not None}) or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _bytes(header: Header, ids: Mapping[str, int]) -> Tokenizer:
    """BPE over bytes, as GPT-2 spells them."""
    name = header.settings.get("tokenizer.ggml.pre")
    if name not in _PRE:
        _refuse(header, "pre", f"supported are {', '.join(_PRE)}")
    pairs = [pair.split(" ") for pair in _strings(header, "merges")]
    if wrong := [pair for pair in pairs if len(pair) != 2]:
        _refuse(header, "merges", f"{short(' '.join(wrong[0]))} is no pair")
    merges = [(first, second) for first, second in pairs]
    whole = _SAME.get(name, name)
    made = Tokenizer(models.BPE(dict(ids), merges, ignore_merges=whole in ("llama-bpe", "tekken")))
    if whole == "qwen2":
        made.normalizer = normalizers.NFC()
    made.pre_tokenizer = _cut(whole)
    made.decoder = decoders.ByteLevel()
    return made


def _cut(name: str) -> pre_tokenizers.PreTokenizer:
    if name not in _PATTERNS:
        own = pre_tokenizers.ByteLevel(add_prefix_space=False)
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, own]) if name == "smollm" else own
    words = pre_tokenizers.Split(Regex(_PATTERNS[name]), "isolated")
    return pre_tokenizers.Sequence(
        [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def _pieces(header: Header, ids: Mapping[str, int]) -> Tokenizer:
    """BPE of SentencePiece, which joins whatever makes the token with the best score."""
    scores = header.settings.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(ids):
        _refuse(header, "scores", f"it must have {len(ids)} numbers")
    if max(map(len, ids)) > _LONGEST_PIECE or sum(map(len, ids)) > _MOST_PIECES:
        _refuse(
            header,
            "tokens",
            f"those of SentencePiece may have {_LONGEST_PIECE} characters, all {_MOST_PIECES:,}",
        )
    unknown = _id(header, "unknown", len(ids)) or 0
    tokens = list(ids)
    made = Tokenizer(
        models.BPE(
            dict(ids),
            _merges(ids, scores),
            unk_token=tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    front = header.settings.get("tokenizer.ggml.add_space_prefix", True)
    parts = [normalizers.Prepend("▁")] if front else []
    made.normalizer = normalizers.Sequence([*parts, normalizers.Replace(" ", "▁")])
    ends = [decoders.Strip(" ", 1, 0)] if front else []
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *ends]
    )
    return made


def _merges(ids: Mapping[str, int], scores: Sequence[float]) -> list[tuple[str, str]]:
    """All pairs of tokens that make a token, those of the best scores first; of the same token's,
    the longer beginning first, as Transformers has it."""
    found = []
    for token, number in ids.items():
        for at in range(1, len(token)):
            first, second = token[:at], token[at:]
            if first in ids and second in ids:
                found.append(((scores[number], len(first), len(second)), first, second))
    found.sort(key=lambda each: each[0], reverse=True)
    return [(first, second) for _, first, second in found]


def _strings(header: Header, name: str) -> Sequence[str]:
    found = header.settings.get(f"tokenizer.ggml.{name}")
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        _refuse(header, name, "it must be a list of texts")
    return found


def _id(header: Header, name: str, known: int) -> int | None:
    """A named token's number; None where the file names none."""
    found = header.settings.get(f"tokenizer.ggml.{name}_token_id")
    if found is not None and not (type(found) is int and 0 <= found < known):
        _refuse(header, f"{name}_token_id", f"there are {known} tokens")
    return found


def _refuse(header: Header, name: str, problem: str) -> NoReturn:
    value = header.settings.get(f"tokenizer.ggml.{name}")
    raise Refusal(f"{header.path}: tokenizer.ggml.{name} is {short(value)}; {problem}")
