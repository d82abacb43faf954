"""A tokenizer's files as Transformers must find them to read as jaxorg does.

In Transformers the settings beside a tokenizer.json may change what it says: the classes of Llama's
and Qwen2's tokenizers build their own from its vocabulary, and tokens that the settings name are
added where they are missing. Here tokenizer.json and the chat template alone decide, so these are
written, and settings that agree with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxorg.llama import files
from jaxorg.llama.chat_template import ChatTemplate, dated

TEMPLATE = "chat_template.jinja"
_FILE, _SETTINGS = "tokenizer.json", "tokenizer_config.json"
_KEPT = ("model_max_length", "padding_side", "truncation_side")
_NAMED = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))


def write_tokenizer(
    folder: Path, origin: Path, template: ChatTemplate, options: Mapping[str, Any]
) -> None:
    """Write the tokenizer of `origin` into an existing folder.

    Args:
        folder: where to.
        origin: a folder whose tokenizer jaxorg has read.
        template: the chat template that it was used with.
        options: variables that the template knew besides.

    Raises:
        Refusal: a file is missing or broken.
    """
    tokenizer = files.read_json(origin / _FILE) | {"truncation": None, "padding": None}
    added = {
        str(token["id"]): {key: value for key, value in token.items() if key != "id"}
        for token in tokenizer.get("added_tokens") or ()
    }
    # Transformers would add what is not there, and then read that text as one token.
    known = {token["content"] for token in added.values()}
    named = {k: v for k, v in template.special_tokens.items() if k in _NAMED and v in known}
    before = files.read_json(origin / _SETTINGS)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is
        "add_prefix_space": _prefix_space(tokenizer),
        "added_tokens_decoder": added,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        **{key: before[key] for key in _KEPT if before.get(key) is not None},
        **named,
    }
    others = {k: v for k, v in template.special_tokens.items() if k not in named}
    used = {name: text for name, text in others.items() if name in template.text}
    text = dated(with_defaults(template.text, {**used, **options}))
    (folder / TEMPLATE).write_text(text, encoding="utf-8")
    for name, content, indent in ((_FILE, tokenizer, None), (_SETTINGS, settings, 2)):
        written = json.dumps(content, indent=indent, ensure_ascii=False) + "\n"
        (folder / name).write_text(written, encoding="utf-8")


def _prefix_space(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a space is put before texts; Transformers 4 changes a tokenizer to what it is told,
    or to none."""
    before = tokenizer.get("pre_tokenizer")
    return isinstance(before, dict) and bool(before.get("add_prefix_space"))


def with_defaults(text: str, variables: Mapping[str, bool | float | str]) -> str:
    """A template that knows variables unless it is rendered with others.

    Each stands on a line of its own, whose end is no part of what the template writes.
    """
    lines = (
        f"{{% set {name} = {name} if {name} is defined else "
        f"{json.dumps(value, ensure_ascii=False)} %}}\n"
        for name, value in variables.items()
    )
    return "".join(lines) + text
