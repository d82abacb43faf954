"""Text to tokens and back, with the chat format of a Hugging Face tokenizer folder.

A chat template is foreign Jinja code, so it is rendered in a sandbox and never trusted.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import tokenizers
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jaxorg.runtime import Refusal

# Some templates write today's date into the system prompt. The same run must give the same tokens
# tomorrow, so today is always the date that Llama 3's templates fall back on.
_TODAY = datetime(2024, 7, 26)

# Stands for an answer when the template is asked what it writes after one.
_PROBE = "jaxorgprobe"


class Tokenizer:
    """A model's tokenizer with its chat format.

    A conversation is `prompt_ids(prompt) + completion_ids(answer)`. The halves are encoded apart,
    so what is trained on equals what generation sees, whatever the tokenizer would merge. Text
    that spells a special token becomes that token, as in Transformers.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        template: "_ChatTemplate",
        end_ids: Sequence[int],
        pad_id: int | None,
    ) -> None:
        """`end_ids` end a generation, the tokenizer's own eos first; `pad_id` defaults to it.

        Raises `Refusal` when neither `end_ids` nor the template names an end token.
        """
        self._backend = backend
        self._template = template
        self._suffix = self._end_of_turn(end_ids)
        self._end_ids = frozenset((*end_ids, self._suffix[-1]))
        first_end = end_ids[0] if end_ids else self._suffix[-1]
        self._pad_id = first_end if pad_id is None else pad_id
        self._vocab_size = max(backend.get_vocab().values()) + 1

    @classmethod
    def load(cls, folder: Path, chat_template: str | None = None) -> "Tokenizer":
        """Reads `tokenizer.json`, `tokenizer_config.json` and what else names end tokens.

        `chat_template` replaces the folder's own. Raises `Refusal` for files that are missing or
        broken and for a folder without a chat template when none is passed.
        """
        backend = _read_backend(folder / "tokenizer.json")
        config_file = folder / "tokenizer_config.json"
        config = _read_json(config_file)
        special = _special_tokens(config)
        ids: dict[str, int] = {}
        for name in [name for name in ("eos_token", "pad_token") if name in special]:
            token = backend.token_to_id(special[name])
            if token is None:
                raise Refusal(
                    f"{config_file}: {name} {special[name]!r} is not in tokenizer.json; "
                    f"copy both files from the same model"
                )
            ids[name] = token
        own_end = [ids["eos_token"]] if "eos_token" in ids else []
        ends = [*own_end, *_configured_ends(folder)]
        template = _read_template(folder, config, special, chat_template)
        return cls(backend, template, ends, ids.get("pad_token"))

    @property
    def vocab_size(self) -> int:
        """One more than the largest token id."""
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

    def decode(self, ids: Sequence[int]) -> str:
        """The text before the first end token, without special tokens."""
        stop = next((i for i, token in enumerate(ids) if token in self._end_ids), len(ids))
        text: str = self._backend.decode(list(ids[:stop]), skip_special_tokens=True)
        return text

    def _encode(self, text: str) -> list[int]:
        # The template has written every special token that belongs there.
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


class _ChatTemplate:
    """A Hugging Face chat template, compiled; `source` says in messages where it comes from."""

    def __init__(self, text: str, special_tokens: Mapping[str, str], source: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _TODAY.strftime
        self._special_tokens = dict(special_tokens)
        self._source = source
        try:
            self._template = environment.from_string(text)
        except jinja2.TemplateError as error:
            raise self.refusal(str(error) or type(error).__name__) from error

    def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
        """The conversation as text. Raises `Refusal` when the template fails or is not safe."""
        try:
            return self._template.render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except Exception as error:  # foreign code may fail in any way
            raise self.refusal(str(error) or type(error).__name__) from error

    def refusal(self, problem: str) -> Refusal:
        """The error that says in one line what is wrong with this template."""
        line = " ".join(problem.split())
        return Refusal(f"{self._source}: the chat template does not work ({line}); pass another")


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def _read_backend(file: Path) -> tokenizers.Tokenizer:
    if not file.is_file():
        raise Refusal(f"{file}: not found; point to a folder with a Hugging Face tokenizer.json")
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises no narrower type
        problem = " ".join(str(error).split())
        raise Refusal(f"{file}: not a tokenizer ({problem}); download it again") from error
    # Some folders keep the settings of the run that saved them.
    backend.no_truncation()
    backend.no_padding()
    return backend


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise Refusal(f"{file}: not found; copy it from the model's folder")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise Refusal(f"{file}: not JSON ({error}); download it again") from error
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
    for file in (folder / "generation_config.json", folder / "config.json"):
        value = _read_json(file).get("eos_token_id") if file.is_file() else None
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(type(token) is int and token >= 0 for token in ids):
            raise Refusal(f"{file}: eos_token_id is {value!r}; write a token id or a list of them")
        ends += ids
    return list(dict.fromkeys(ends))


def _read_template(
    folder: Path, config: Mapping[str, Any], special: Mapping[str, str], given: str | None
) -> _ChatTemplate:
    """The chat template: the given one, its own file, or the tokenizer's settings."""
    own_file = folder / "chat_template.jinja"
    config_file = folder / "tokenizer_config.json"
    if given is not None:
        return _ChatTemplate(given, special, "chat_template")
    if own_file.is_file():
        text = own_file.read_text(encoding="utf-8", errors="replace")
        return _ChatTemplate(text, special, str(own_file))
    found = config.get("chat_template")
    if isinstance(found, list):
        named = (entry for entry in found if isinstance(entry, dict))
        found = next((e.get("template") for e in named if e.get("name") == "default"), None)
    if not isinstance(found, str):
        raise Refusal(f"{config_file}: no chat_template; use an instruct model or pass a template")
    return _ChatTemplate(found, special, str(config_file))
