"""Tokenizers of several kinds for tests, and what answers are in tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, trainers

from jaxorg.llama.tokenizer import Tokenizer

# As Llama 2's: a space before the answer and one after it, and both turns are trimmed.
LLAMA_2_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
SPECIAL = ("<unk>", "<s>", "</s>")


def answer_ids(tokenizer: Tokenizer, answer: str, prompt: str = "hi", **how: Any) -> list[int]:
    """The tokens of an answer in its conversation."""
    ids, start = tokenizer.conversation(prompt, answer, **how)
    return ids[start:]


def write_sentencepiece(folder: Path, texts: list[str], size: int = 512, **config: Any) -> Path:
    """Write a tokenizer as Llama 2's is converted from SentencePiece: every stretch of text gets a
    space in front, and unknown characters become bytes."""
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    space = normalizers.Replace(" ", "▁")
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), space])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=size - 256, special_tokens=list(SPECIAL), show_progress=False
    )
    backend.train_from_iterator((word for text in texts for word in text.split()), trainer)
    raw = json.loads(backend.to_str())
    known = raw["model"]["vocab"]
    known |= {f"<0x{byte:02X}>": len(known) + byte for byte in range(256)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": LLAMA_2_TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | config))
    return folder
