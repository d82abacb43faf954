"""GGUF files for tests, written by the package `gguf` as llama.cpp's converter lays them out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tokenizers
from safetensors.numpy import load_file
from tokenizers import models, pre_tokenizers, trainers

from jaxorg.llama.config_file import read_config
from jaxorg.llama.model import LlamaConfig

TEXTS = ["the cat sat on the mat", "I'll say: it is 2026!", "a  b\n\nc", "é🙂 中文"]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + "
    "'\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attn_output",
    **{f"self_attn.{part}_proj": f"attn_{part}" for part in "qkv"},
    **{f"self_attn.{part}_norm": f"attn_{part}_norm" for part in "qk"},
    **{f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")},
}


def byte_tokenizer(size: int = 300) -> tokenizers.Tokenizer:
    """A small BPE over bytes, as GPT-2's."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXTS, trainer)
    return made


def write_gguf(
    path: Path,
    folder: Path,
    tokenizer: tokenizers.Tokenizer | None = None,
    change: Callable[[gguf.GGUFWriter], None] = lambda writer: None,
    store: str = "F32",
    pre: str = "gpt-2",
) -> Path:
    """Write the model of a Hugging Face folder.

    Args:
        path: where to.
        folder: which has weights and a config.json.
        tokenizer: a BPE over bytes, or one made of SentencePiece's; a small one if none is given.
        change: adds settings.
        store: how matrices are stored, by GGML's name.
        pre: how words are cut, by llama.cpp's name.
    """
    config = read_config(folder)
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    kind = "llama" if kind == "mistral" else kind
    writer = gguf.GGUFWriter(str(path), kind)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.head_dim)
    if config.linear_factor != 1:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.linear_factor)
    if config.sliding_window:
        writer.add_sliding_window(config.sliding_window)
    _add_vocabulary(writer, tokenizer or byte_tokenizer(), pre)
    change(writer)
    for name, tensor in _tensors(folder, config, kind == "llama").items():
        how = gguf.GGMLQuantizationType[store if tensor.ndim == 2 else "F32"]
        writer.add_tensor(name, gguf.quants.quantize(tensor, how), raw_dtype=how)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(folder: Path, config: LlamaConfig, interleaved: bool) -> Mapping[str, np.ndarray]:
    found = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        tensor = tensor.astype(np.float32)
        if name == "model.embed_tokens.weight":
            found["token_embd.weight"] = tensor
        elif name == "model.norm.weight":
            found["output_norm.weight"] = tensor
        elif name == "lm_head.weight":
            found["output.weight"] = tensor
        else:
            _, _, layer, rest = name.split(".", 3)
            part, _, end = rest.rpartition(".")
            heads = {"self_attn.q_proj": config.num_attention_heads}
            heads["self_attn.k_proj"] = config.num_key_value_heads
            if interleaved and part in heads:
                halves = tensor.reshape(heads[part], 2, -1, *tensor.shape[1:])
                tensor = halves.swapaxes(1, 2).reshape(tensor.shape)
            found[f"blk.{layer}.{_NAMES[part]}.{end}"] = tensor
    return found


def _add_vocabulary(writer: gguf.GGUFWriter, tokenizer: tokenizers.Tokenizer, pre: str) -> None:
    raw: dict[str, Any] = json.loads(tokenizer.to_str())
    merges = [tuple(pair) for pair in raw["model"]["merges"]]
    added = {token["id"]: token["special"] for token in raw["added_tokens"]}
    ids = {number: token for token, number in tokenizer.get_vocab().items()}
    tokens = [ids.get(number, f"[PAD{number}]") for number in range(max(ids) + 1)]
    writer.add_token_list(tokens)
    kinds = {True: 3, False: 4, None: 1}
    writer.add_token_types([kinds[added.get(number)] for number in range(len(tokens))])
    if raw["model"]["byte_fallback"]:  # of SentencePiece: scores in the place of merges
        ranks = {first + second: -rank for rank, (first, second) in reversed([*enumerate(merges)])}
        writer.add_tokenizer_model("llama")
        writer.add_token_scores([float(ranks.get(token, 0)) for token in tokens])
    else:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(CHATML)
