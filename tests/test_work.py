"""What compiled programs do, by the compiler's own count, against a count by hand."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from jaxorg.engine.cohort import CHUNK_STEPS, Scorer, Trainer
from jaxorg.engine.mesh import make_mesh, parse
from jaxorg.llama.lora import LoraConfig
from jaxorg.llama.model import LlamaConfig
from jaxorg.planning.signature import ModelSignature, Signature

CONFIG = LlamaConfig(
    vocab_size=1024,
    hidden_size=64,
    intermediate_size=192,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=256,
    tie_word_embeddings=True,
)
PROMPTS, WIDTH, ROWS, COUNT = 8, 96, 16, 8


class Work(NamedTuple):
    """What a program does."""

    flops: float
    temporary: int  # bytes that it needs besides what goes in and comes out


def work(function: Any, *arguments: Any) -> Work:
    compiled = function.lower(*arguments).compile()
    memory = compiled.memory_analysis()
    return Work(compiled.cost_analysis()["flops"], memory.temp_size_in_bytes)


def matrices(tokens: int) -> float:
    """Multiplications and additions by the weights of all blocks."""
    hidden, wide = CONFIG.hidden_size, CONFIG.intermediate_size
    heads = CONFIG.num_attention_heads + CONFIG.num_key_value_heads
    of_a_block = 2 * hidden * heads * CONFIG.head_dim + 3 * hidden * wide
    return 2.0 * tokens * CONFIG.num_hidden_layers * of_a_block


def attention(tokens: int, slots: int) -> float:
    """Of tokens that each look at so many slots."""
    heads = CONFIG.num_attention_heads * CONFIG.head_dim
    return 4.0 * tokens * slots * heads * CONFIG.num_hidden_layers


def head(tokens: int) -> float:
    return 2.0 * tokens * CONFIG.hidden_size * CONFIG.vocab_size


def scorer(lora: LoraConfig | None = None) -> Scorer:
    return Scorer(ModelSignature(CONFIG, lora), make_mesh(parse("cpu-1")), 1)


def test_reading_prompts_computes_no_logits() -> None:
    one = scorer()
    found = work(one.passes.prefill, *one.abstract_prefill(PROMPTS, WIDTH))
    tokens = PROMPTS * WIDTH
    expected = matrices(tokens) + attention(tokens, WIDTH)
    assert found.flops < 1.25 * expected
    assert head(tokens) > 0.3 * expected  # which would be seen


def test_scoring_reads_completions_only() -> None:
    one = scorer()
    found = work(one.passes.score, *one.abstract_score(PROMPTS, WIDTH, ROWS, COUNT))
    tokens = ROWS * COUNT
    expected = matrices(tokens) + attention(tokens, WIDTH + COUNT) + head(tokens)
    assert expected < found.flops < 1.25 * expected
    assert matrices(ROWS * (WIDTH + COUNT)) > 4 * expected  # what reading prompts again would take
    kept = 2 * CONFIG.num_hidden_layers * CONFIG.num_key_value_heads * CONFIG.head_dim * 4
    logits = tokens * CONFIG.vocab_size * 4
    assert found.temporary < 3 * (ROWS * (WIDTH + COUNT) * kept + logits)


@pytest.mark.parametrize("lora", [None, LoraConfig(4)])
def test_a_step_passes_forth_and_back_once(lora: LoraConfig | None) -> None:
    """Gradients of adapters take no gradients of the weights below them."""
    batch, length = 4, 64
    signature = Signature(ModelSignature(CONFIG, lora), length, batch, "adamw", "constant")
    trainer = Trainer(signature, make_mesh(parse("cpu-1")), 1)
    found = work(trainer.train, *trainer.abstract_arguments())
    tokens = batch * (length - 1)
    passes = 2 if lora else 3
    expected = passes * (matrices(tokens) + head(tokens)) + 3 * attention(tokens, length - 1)
    adapters = 3 * _adapters(lora, tokens) if lora else 0.0
    assert expected < found.flops < 1.25 * (expected + adapters)
    assert CHUNK_STEPS > 1  # the compiler counts a loop's body once


def _adapters(lora: LoraConfig, tokens: int) -> float:
    """Of products with adapters, forth; all matrices have one."""
    hidden, wide = CONFIG.hidden_size, CONFIG.intermediate_size
    queries = CONFIG.num_attention_heads * CONFIG.head_dim
    pairs = CONFIG.num_key_value_heads * CONFIG.head_dim
    sizes = [hidden + queries] * 2 + [hidden + pairs] * 2 + [hidden + wide] * 3
    return 2.0 * tokens * lora.rank * sum(sizes) * CONFIG.num_hidden_layers
