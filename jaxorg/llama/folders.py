"""Models and adapters as folders that Transformers and PEFT load: weights, and what goes with them.

A folder is written for a base model: its tokenizer and licence are the base's own, and so is how it
samples.
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
from jaxorg.llama.exported_tokenizer import write_tokenizer
from jaxorg.llama.lora import LoraConfig
from jaxorg.llama.tokenizer import Tokenizer

LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "USE_POLICY.md")
# Settings of the base about sampled answers and lengths. Others change greedy answers, too, a
# penalty of repetition, say, and none were measured with them.
GENERATION = (
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p"),
    *("max_length", "max_new_tokens"),
)


@dataclass(frozen=True)
class Origin:
    """The base model that weights come from, the chat template that replaced its own, and variables
    that the template knew besides."""

    folder: Path
    chat_template: str | None
    template_options: Mapping[str, Any]


def write_model(folder: Path, weights: Weights, origin: Origin) -> None:
    """Write a whole model (fp32) into an existing folder.

    Raises:
        Refusal: a file of the base model is missing or broken.
    """
    ids = _write_speech(folder, origin)
    shape = checkpoint.read_config(origin.folder)
    checkpoint.write_config(folder, shape, {"bos_token_id": None, **ids})
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
        folder: where they go.
        adapters: A and B of each adapted matrix, by their places in the model's tree.
        lora: which matrices are adapted, and of what rank.
        alpha: what, divided by the rank, B is multiplied by in use.
        stands_on: the folder or the hub id of the model that the adapters were trained on.
        revision: of that model on the hub; None for none.
        origin: where the base model's tokenizer and chat format come from.

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
    _write_json(folder / "adapter_config.json", config)
    checkpoint.write_adapters(folder, adapters)


def _write_speech(folder: Path, origin: Origin) -> Mapping[str, Any]:
    """Write how the model reads and ends texts; the ids of its special tokens."""
    for name in LICENCES:
        if found := files.find(origin.folder, name):
            shutil.copyfile(found, folder / name)
    tokenizer = Tokenizer.load(origin.folder, origin.chat_template, origin.template_options)
    write_tokenizer(folder, origin.folder, tokenizer.template, origin.template_options)
    said = [
        files.read_json(found)
        for name in ("config.json", "generation_config.json")
        if (found := files.find(origin.folder, name))
    ]
    bos = [each["bos_token_id"] for each in said if each.get("bos_token_id") is not None]
    # All ends that answers were measured with, the chat template's among them.
    ids = {
        **({"bos_token_id": bos[-1]} if bos else {}),
        "eos_token_id": sorted(tokenizer.end_ids),
        "pad_token_id": tokenizer.pad_id,
    }
    kept = {key: value for key, value in said[-1].items() if key in GENERATION}
    _write_json(folder / "generation_config.json", {**kept, **ids})
    return ids


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
