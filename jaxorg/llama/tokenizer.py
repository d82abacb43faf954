"""Text to tokens and back, with the chat format of a Hugging Face tokenizer folder.

A folder comes from anywhere: what its files make the libraries do is contained here.
"""

import math
import os
import threading
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers

from jaxorg.llama import files
from jaxorg.llama.chat_template import ChatTemplate
from jaxorg.runtime import Refusal, short

# Stands for an answer when the template is asked what it writes after one.
_PROBE = "jaxorgprobe"

_GROWTH = 64  # times that a tokenizer's normalizer or decoder may lengthen a text
_LARGEST_ID = 2**31 - 1


class Tokenizer:
    """A model's tokenizer with its chat format.

    A conversation is `prompt_ids(prompt) + completion_ids(answer)`. The halves are encoded apart,
    so what is trained on equals what generation sees, whatever the tokenizer would merge. Text
    that spells a special token becomes that token, as in Transformers.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        template: ChatTemplate,
        end_ids: Sequence[int],
        pad_id: int | None,
    ) -> None:
        """`end_ids` end a generation, the tokenizer's own eos first; `pad_id` defaults to it.

        Raises `Refusal` when neither `end_ids` nor the template names an end token.
        """
        self._backend = backend
        self._template = template
        if not (vocabulary := backend.get_vocab()):
            raise Refusal("tokenizer.json: it knows no tokens; download it again")
        self._suffix = self._end_of_turn(end_ids)
        self._end_ids = frozenset((*end_ids, self._suffix[-1]))
        first_end = end_ids[0] if end_ids else self._suffix[-1]
        self._pad_id = first_end if pad_id is None else pad_id
        self._vocab_size = max(*vocabulary.values(), *self._end_ids, self._pad_id) + 1

    @classmethod
    def load(cls, folder: Path, chat_template: str | None = None) -> "Tokenizer":
        """Reads `tokenizer.json`, `tokenizer_config.json` and what else names end tokens.

        `chat_template` replaces the folder's own. Raises `Refusal` for files that are missing or
        broken and for a folder without a chat template when none is passed.
        """
        backend = _read_backend(folder)
        config_file = folder / "tokenizer_config.json"
        if not files.find(folder, config_file.name):
            raise Refusal(f"{config_file}: not found; copy it from the model's folder")
        config = _read_object(config_file)
        special = _special_tokens(config)
        ids: dict[str, int] = {}
        for name in [name for name in ("eos_token", "pad_token") if name in special]:
            token = backend.token_to_id(special[name])
            if token is None:
                raise Refusal(
                    f"{config_file}: {name} {short(special[name])} is not in tokenizer.json; "
                    f"copy both files from the same model"
                )
            ids[name] = token
        own_end = [ids["eos_token"]] if "eos_token" in ids else []
        ends = [*own_end, *_configured_ends(folder)]
        template = _read_template(folder, config, special, chat_template)
        return cls(backend, template, ends, ids.get("pad_token"))

    @property
    def template(self) -> ChatTemplate:
        """The chat template."""
        return self._template

    @property
    def vocab_size(self) -> int:
        """One more than the largest token id, those of ends and padding included."""
        return self._vocab_size

    @property
    def pad_id(self) -> int:
        """The token that fills up a batch: the pad token, or the end token where there is none."""
        return self._pad_id

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end a generation."""
        return self._end_ids

    def prompt_ids(self, prompt: str) -> list[int]:
        """The tokens of one user turn, up to where the assistant speaks."""
        return self._encode(self._template.render([_user(prompt)], add_generation_prompt=True))

    def completion_ids(self, answer: str) -> list[int]:
        """The tokens of the assistant's answer, the end-of-turn token included."""
        return [*self.opening_ids(answer), *self._suffix]

    def opening_ids(self, text: str) -> list[int]:
        """The tokens of an answer that begins with `text` and may go on."""
        return self._encode(text)

    def cut(self, text: str, count: int) -> str:
        """`text`, or a beginning of it that takes at most `count` tokens."""
        if len(self.opening_ids(text)) <= count:
            return text
        lengths = range(1, len(text) + 1)
        fits = bisect_right(lengths, count, key=lambda n: len(self.opening_ids(text[:n])))
        return text[:fits]

    def filler(self, count: int) -> str:
        """A text of `count` tokens, or hardly fewer, that says nothing.

        Raises `Refusal` when the tokenizer makes no tokens of numbers.
        """
        for times in (1, 4, 16):
            text = "0 " * count * times
            if len(self.opening_ids(text)) >= count:
                return self.cut(text, count)
        raise Refusal("tokenizer.json: it makes no tokens of numbers; download it again")

    def decode(self, ids: Sequence[int]) -> str:
        """The text before the first end token, without special tokens."""
        stop = next((i for i, token in enumerate(ids) if token in self._end_ids), len(ids))
        with _contained("tokenizer.json: it cannot decode what the model writes"):
            text: str = self._backend.decode(list(ids[:stop]), skip_special_tokens=True)
        return text

    def _encode(self, text: str) -> list[int]:
        # The template has written every special token that belongs there.
        with _contained(f"tokenizer.json: it cannot encode {short(text)}"):
            ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def _end_of_turn(self, end_ids: Sequence[int]) -> list[int]:
        """What the template writes after an answer, up to the token that ends the turn."""
        messages = [_user("question"), {"role": "assistant", "content": _PROBE}]
        text = self._template.render(messages, add_generation_prompt=False)
        if _PROBE not in text:
            raise self._template.refusal("it leaves out the assistant's answer")
        suffix = self._encode(text.rpartition(_PROBE)[2])
        added = self._backend.get_added_tokens_decoder()
        ends = {*end_ids, *(token for token, about in added.items() if about.special)}
        for i, token in enumerate(suffix):
            if token in ends:
                return suffix[: i + 1]
        if not end_ids:
            raise self._template.refusal("it ends no turn, and no eos_token is configured")
        return [*suffix, end_ids[0]]


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def _read_backend(folder: Path) -> tokenizers.Tokenizer:
    file = folder / "tokenizer.json"
    if not files.find(folder, file.name):
        raise Refusal(f"{file}: not found; point to a folder with a Hugging Face tokenizer.json")
    raw = _read_object(file)
    for part in ("normalizer", "decoder"):
        if _growth(raw.get(part)) > _GROWTH:
            raise Refusal(f"{file}: its {part} lengthens texts without bounds; download it again")
    with _contained(f"{file}: not a tokenizer"):
        backend = tokenizers.Tokenizer.from_file(str(file))
    # Some folders keep the settings of the run that saved them.
    backend.no_truncation()
    backend.no_padding()
    return backend


_STDERR = threading.Lock()


@contextmanager
def _contained(problem: str) -> Iterator[None]:
    """Turn whatever the tokenizers library does in the block into a refusal.

    A panic of its Rust code is no `Exception`, and prints itself to the process's standard error,
    which is therefore closed for the moment.
    """
    with _STDERR:
        kept = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            yield
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
                raise
            found = " ".join(str(error).split())
            raise Refusal(f"{problem} ({found}); download it again") from error
        finally:
            os.dup2(kept, 2)
            os.close(nowhere)
            os.close(kept)


def _growth(part: Any) -> int:
    """By how much the replacements of a normalizer or decoder lengthen a text at most."""
    if isinstance(part, list):
        return math.prod(map(_growth, part))
    if not isinstance(part, dict):
        return 1
    content = part.get("content") if part.get("type") == "Replace" else None
    own = max(1, len(content)) if isinstance(content, str) else 1
    return own * math.prod(_growth(part.get(name)) for name in ("normalizers", "decoders"))


def _read_object(file: Path) -> dict[str, Any]:
    content = files.read_json(file)
    if not isinstance(content, dict):
        raise Refusal(f"{file}: holds no JSON object; download it again")
    return content


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """The named special tokens, each written as text or as an object with its text."""
    tokens = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return tokens


def _configured_ends(folder: Path) -> list[int]:
    """The model's own `eos_token_id`s; generation's settings come first, both may be missing."""
    ends: list[int] = []
    for name in ("generation_config.json", "config.json"):
        file = files.find(folder, name)
        value = _read_object(file).get("eos_token_id") if file else None
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(token) is int and 0 <= token <= _LARGEST_ID for token in ids):
            raise Refusal(
                f"{folder / name}: eos_token_id is {short(value)}; write a token id or a list of "
                f"them"
            )
        ends += ids
    return list(dict.fromkeys(ends))


def _read_template(
    folder: Path, config: Mapping[str, Any], special: Mapping[str, str], given: str | None
) -> ChatTemplate:
    """The chat template: the given one, its own file, or the tokenizer's settings."""
    own_file = files.find(folder, "chat_template.jinja")
    config_file = folder / "tokenizer_config.json"
    if given is not None:
        return ChatTemplate(given, special, "chat_template")
    if own_file:
        text = files.read_text(own_file, errors="replace")
        return ChatTemplate(text, special, str(own_file))
    found = config.get("chat_template")
    if isinstance(found, list):
        named = (entry for entry in found if isinstance(entry, dict))
        found = next((e.get("template") for e in named if e.get("name") == "default"), None)
    if not isinstance(found, str):
        raise Refusal(f"{config_file}: no chat_template; use an instruct model or pass a template")
    return ChatTemplate(found, special, str(config_file))
