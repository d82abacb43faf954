"""Models and adapters as folders that Transformers and PEFT load: weights, and what goes with them.

A folder is written for a base model: its tokenizer, generation settings and licence are the
base's own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxorg.llama import checkpoint, files
from jaxorg.llama.checkpoint import Weights
from jaxorg.llama.lora import LoraConfig
from jaxorg.llama.tokenizer import Tokenizer

TEMPLATE = "chat_template.jinja"
COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    TEMPLATE,
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "NOTICE",
    "USE_POLICY.md",
)


@dataclass(frozen=True)
class Origin:
    """The base model that weights come from, and the chat template that replaced its own."""

    folder: Path
    chat_template: str | None


def write_model(folder: Path, weights: Weights, origin: Origin) -> None:
    """Write a whole model (fp32) into an existing folder.

    Raises:
        Refusal: a file of the base model is missing or broken.
    """
    ids = _write_speech(folder, origin)
    checkpoint.write_config(folder, checkpoint.read_config(origin.folder))
    _change_json(folder / "config.json", {"bos_token_id": None, **ids})
    checkpoint.write_weights(folder, weights)


def write_adapters(
    folder: Path,
    adapters: Weights,
    lora: LoraConfig,
    alpha: float,
    stands_on: str,
    revision: str | None,
    origin: Origin,
) -> None:
    """Write adapters (fp32) into an existing folder.

    Args:
        stands_on: the folder or the hub id of the model that the adapters were trained on.
        revision: of that model on the hub.

    Raises:
        Refusal: a file of the base model is missing or broken.
    """
    _write_speech(folder, origin)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": stands_on,
        "revision": revision,
        "r": lora.rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted({f"{name}_proj" for name in lora.targets}),
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,  # the scale is alpha / r
        "inference_mode": True,
    }
    _change_json(folder / "adapter_config.json", config)
    checkpoint.write_adapters(folder, adapters)


def _write_speech(folder: Path, origin: Origin) -> Mapping[str, Any]:
    """Write how the model reads and ends texts; the ids of its special tokens."""
    for name in COPIED:
        if found := files.find(origin.folder, name):
            shutil.copyfile(found, folder / name)
    if origin.chat_template is not None:
        (folder / TEMPLATE).write_text(origin.chat_template, encoding="utf-8")
    tokenizer = Tokenizer.load(origin.folder, origin.chat_template)
    ids: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        if found := files.find(origin.folder, name):
            ids |= {key: v for key, v in files.read_json(found).items() if key == "bos_token_id"}
    # All ends that answers were measured with, the chat template's among them.
    ids |= {"eos_token_id": sorted(tokenizer.end_ids), "pad_token_id": tokenizer.pad_id}
    if found := files.find(origin.folder, "generation_config.json"):
        shutil.copyfile(found, folder / found.name)
    _change_json(folder / "generation_config.json", ids)
    return ids


def _change_json(path: Path, changes: Mapping[str, Any]) -> None:
    """Set keys of a JSON file, which is made if there is none."""
    content = files.read_json(path) if path.exists() else {}
    text = json.dumps({**content, **changes}, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
