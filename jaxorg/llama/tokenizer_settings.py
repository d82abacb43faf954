"""What a folder says of its tokenizer besides tokenizer.json: special tokens, ends of turn, and the
chat template. Each is found where Transformers finds it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxorg.errors import Refusal, short
from jaxorg.llama import files
from jaxorg.llama.chat_template import ChatTemplate
from jaxorg.llama.tokenizer_file import TokenizerFile

_CONFIG = "tokenizer_config.json"
_TOKENS = "special_tokens_map.json"
_NAMED = ("extra_special_tokens", "model_specific_special_tokens")  # where they map names to tokens
_LARGEST_ID = 2**31 - 1
# The `eos_token_id` of a Llama's config where nobody gave one. It is right for Llama 2 alone; in
# Llama 3's vocabulary it is "#".
_DEFAULT_END = 2
# Names that the renderer sets, that its functions have, or that Jinja keeps to itself.
_TAKEN = (
    *("messages", "add_generation_prompt", "tools", "documents"),
    *("raise_exception", "strftime_now"),
    *("self", "loop", "caller", "varargs", "kwargs", "true", "false", "none"),
)
_OPTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_LONGEST_OPTION = 256  # characters


class ChatFormat(NamedTuple):
    """How a sweep file changes the chat format of a folder."""

    template: str | None = None  # in place of the folder's own
    written: str = "{}"  # variables that it knows besides: as JSON, in which 1 and true differ

    @property
    def options(self) -> dict[str, Any]:
        """The variables by their names."""
        options: dict[str, Any] = json.loads(self.written)
        return options


def no_option(name: str, value: Any) -> str:
    """What is to be done about an option of a chat template that is invalid; "" if it is not."""
    if not _OPTION.fullmatch(name) or name in _TAKEN:
        return "no template has an option of that name; remove it"
    if not isinstance(value, bool | int | float | str):
        return "it must be true, false, a number or text"
    if isinstance(value, str) and len(value) > _LONGEST_OPTION:
        return f"a text may have {_LONGEST_OPTION} characters"
    if not isinstance(value, str) and not abs(value) < 2**53:
        return "the number is too large"
    return ""


class Settings(NamedTuple):
    """What goes with a tokenizer.json."""

    template: ChatTemplate
    ends: Sequence[int]  # tokens that end a generation, the tokenizer's own eos first
    pad: int | None


def read(
    folder: Path, tokens: TokenizerFile, chat_template: str | None, options: Mapping[str, Any]
) -> Settings:
    """What the files beside a tokenizer.json say.

    Args:
        folder: where they are.
        tokens: that tokenizer.json.
        chat_template: in place of the folder's own.
        options: variables that the template knows besides.

    Raises:
        Refusal: one of them is missing or broken, or names a token that is not there; or there is
            no chat template.
    """
    config_file = folder / _CONFIG
    if not files.find(folder, _CONFIG):
        raise Refusal(f"{config_file}: not found; copy it from the model's folder")
    config = files.read_object(config_file)
    special = _special_tokens(folder, config)
    ids: dict[str, int] = {}
    for name in [name for name in ("eos_token", "pad_token") if name in special]:
        token = tokens.id_of(special[name])
        if token is None:
            raise Refusal(
                f"{config_file}: {name} {short(special[name])} is not in tokenizer.json; "
                f"copy both files from the same model"
            )
        ids[name] = token
    own = [ids["eos_token"]] if "eos_token" in ids else []
    text, source = _template(folder, config, chat_template)
    template = ChatTemplate(text, special, source, options)
    return Settings(template, _ends(folder, tokens, own), ids.get("pad_token"))


def configured(folder: Path, key: str) -> Any:
    """What the model's settings say of `key`: those of generation first, config.json where they say
    nothing; None where neither does."""
    for name in ("generation_config.json", "config.json"):
        file = files.find(folder, name)
        if file and (value := files.read_object(file).get(key)) is not None:
            return value
    return None


def _special_tokens(folder: Path, config: Mapping[str, Any]) -> Mapping[str, str]:
    """The named special tokens, each written as text or as an object with its text.

    Those of special_tokens_map.json win, but count only where the settings do not list all added
    tokens: Transformers then takes the settings to be of a later version.
    """
    tables = [config]
    if "added_tokens_decoder" not in config and (file := files.find(folder, _TOKENS)):
        tables.append(files.read_object(file))
    found: dict[str, str] = {}
    for table in tables:
        own = {name: value for name, value in table.items() if name.endswith("_token")}
        named = [own, *(table[key] for key in _NAMED if isinstance(table.get(key), dict))]
        for name, value in ((n, v) for each in named for n, v in each.items()):
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str):
                found[name] = text
            elif text is None:
                found.pop(name, None)
    return found


def _ends(folder: Path, tokens: TokenizerFile, own: Sequence[int]) -> Sequence[int]:
    """The tokens that end a generation: the tokenizer's own eos, and the model's."""
    value = configured(folder, "eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(token) is int and 0 <= token <= _LARGEST_ID for token in ids):
        raise Refusal(
            f"{folder}: eos_token_id is {short(value)} in generation_config.json or config.json; "
            f"write a token id or a list of them"
        )
    if own and ids == [_DEFAULT_END] and _DEFAULT_END not in tokens.added():
        ids = []
    return list(dict.fromkeys([*own, *ids]))


def _template(folder: Path, config: Mapping[str, Any], given: str | None) -> tuple[str, str]:
    """The chat template and where it is from: given, a file of its own, or the settings."""
    if given is not None:
        return given, "chat_template"
    if own_file := files.find(folder, "chat_template.jinja"):
        return files.read_text(own_file, errors="replace"), str(own_file)
    found = config.get("chat_template")
    if isinstance(found, list):
        named = (entry for entry in found if isinstance(entry, dict))
        found = next((e.get("template") for e in named if e.get("name") == "default"), None)
    if not isinstance(found, str):
        raise Refusal(
            f"{folder / _CONFIG}: no chat_template; use an instruct model, or pass a template as "
            f"base.chat_template"
        )
    return found, str(folder / _CONFIG)
