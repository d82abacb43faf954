"""Families that share Llama's layout: generation with a cache, and adapters."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from weights import merged, random_weights

from jaxorg.engine.params import Params, abstract_model
from jaxorg.engine.score import prefill
from jaxorg.llama import lora
from jaxorg.llama.generate import Asked, generate
from jaxorg.llama.lora import LoraConfig
from jaxorg.llama.model import LlamaConfig
from jaxorg.planning.signature import ModelSignature

pytestmark = pytest.mark.usefixtures("strict_dtypes")

LLAMA = LlamaConfig(
    vocab_size=29,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=4,
    max_position_embeddings=64,
    tie_word_embeddings=False,  # a tied model mostly repeats its last token
)
FAMILIES = {"qwen2": replace(LLAMA, qkv_bias=True), "qwen3": replace(LLAMA, qk_norm=True)}
PROMPTS = ([3, 1, 4, 1, 5, 9, 2], [6], [5, 3, 5, 8])
WIDTH, NEW = 8, 12


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
def test_cached_generation_equals_greedy_decoding_by_full_passes(config: LlamaConfig) -> None:
    graph = abstract_model(ModelSignature(config))[0]
    weights, _ = random_weights(ModelSignature(config))
    whole = jax.jit(lambda tokens: nnx.merge(graph, weights, {})(tokens)[0])
    expected = []
    for prompt in PROMPTS:
        text = list(prompt)
        for _ in range(NEW):
            row = jnp.asarray([text + [0] * (WIDTH + NEW - len(text))], jnp.int32)
            text.append(int(np.argmax(whole(row)[0, len(text) - 1])))
        expected.append(text[len(prompt) :])
    assert len(np.unique(expected)) > 5

    @jax.jit
    def continued(prompts: jax.Array, rows: Asked, keys: jax.Array) -> Any:
        params, options = Params(weights, {}), {"new_tokens": NEW, "end_ids": ()}
        prefix = prefill(graph, params, prompts)
        return generate(graph, params, prefix, rows, keys, jnp.zeros(len(PROMPTS)), **options)

    prompts = jnp.asarray([p + [11] * (WIDTH - len(p)) for p in PROMPTS], jnp.int32)
    about = (range(len(PROMPTS)), [len(p) for p in PROMPTS], [p[-1] for p in PROMPTS])
    rows = Asked(*(jnp.asarray(x, jnp.int32) for x in about))
    keys = jax.random.split(jax.random.key(0), len(PROMPTS))
    np.testing.assert_array_equal(continued(prompts, rows, keys), expected)


@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES)
def test_merged_weights_equal_the_adapter_beside_its_base(config: LlamaConfig) -> None:
    adapters = LoraConfig(rank=2)
    tokens = jnp.asarray([PROMPTS[0]], jnp.int32)

    def logits(signature: ModelSignature, *weights: Any) -> jax.Array:
        graph = abstract_model(signature)[0]
        return jax.jit(lambda t, f: nnx.merge(graph, t, f)(tokens)[0])(*weights)

    drawn, base = random_weights(ModelSignature(config, adapters))
    trained = lora.scaled(drawn, 1.5)
    beside = logits(ModelSignature(config, adapters), trained, base)
    folded = merged(base, drawn, 1.5)
    np.testing.assert_allclose(
        logits(ModelSignature(config), folded, {}), beside, rtol=0, atol=1e-4
    )
