"""The model's logits, its adapters, and the ways to compute the same thing."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from make_golden import GOLDEN, SHAPES, random_shape, random_tokens, reference, reference_logits
from safetensors.numpy import load_file
from weights import load, merged, random_weights

from jaxorg.engine.params import Params, abstract_model, create, split
from jaxorg.llama import checkpoint, lora
from jaxorg.llama.lora import LoraConfig
from jaxorg.llama.model import LlamaConfig
from jaxorg.planning.signature import ModelSignature

pytestmark = pytest.mark.usefixtures("strict_dtypes")

TOLERANCE = 1e-4  # of logits that differ by whole units
SMALL = LlamaConfig(
    vocab_size=37,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    initializer_range=0.3,
)
TOKENS = random_tokens(SMALL.vocab_size, seed=0)


def logits_of(
    signature: ModelSignature, trainable: Any, frozen: Any, tokens: np.ndarray
) -> np.ndarray:
    graph = abstract_model(signature)[0]
    model = jax.jit(lambda t, f, tokens: nnx.merge(graph, t, f)(tokens)[0])
    return np.asarray(model(trainable, frozen, tokens))


def logits_from(folder: Path, tokens: np.ndarray) -> np.ndarray:
    signature = ModelSignature(checkpoint.read_config(folder))
    weights = load(folder)
    return logits_of(signature, weights, {}, tokens)


def fresh(signature: ModelSignature, seed: int = 0) -> Params:
    """A model's weights at birth."""
    return split(signature, create(signature, jax.random.key(seed)))[1]


@pytest.mark.parametrize("name", SHAPES)
def test_logits_equal_those_that_transformers_computed(name: str) -> None:
    expected = load_file(GOLDEN / name / "expected" / "logits.safetensors")
    assert np.std(expected["logits"]) > 0.5
    found = logits_from(GOLDEN / name, expected["tokens"])
    np.testing.assert_allclose(found, expected["logits"], rtol=0, atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore")  # whatever torch and Transformers say while being imported
@pytest.mark.parametrize("seed", range(12))
def test_logits_equal_those_of_transformers_on_random_shapes(seed: int, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    shape = random_shape(seed)
    model = reference(shape, seed)
    model.save_pretrained(tmp_path)
    tokens = random_tokens(shape["vocab_size"], seed)
    found = logits_from(tmp_path, tokens)
    np.testing.assert_allclose(found, reference_logits(model, tokens), rtol=0, atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("family", ["mistral", "qwen2", "qwen3"])
def test_logits_equal_those_of_transformers_in_other_families(
    family: str, seed: int, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    shape = random_shape(seed, family)
    model = reference(shape, seed)
    model.save_pretrained(tmp_path)
    tokens = random_tokens(shape["vocab_size"], seed)
    expected = reference_logits(model, tokens)
    assert np.std(expected) > 0.5
    np.testing.assert_allclose(logits_from(tmp_path, tokens), expected, rtol=0, atol=TOLERANCE)


def test_a_token_sees_no_later_token() -> None:
    signature = ModelSignature(SMALL)
    weights = random_weights(signature)
    changed = TOKENS.copy()
    changed[:, 20:] = (changed[:, 20:] + 1) % SMALL.vocab_size
    before, after = (logits_of(signature, *weights, tokens) for tokens in (TOKENS, changed))
    np.testing.assert_array_equal(before[:, :20], after[:, :20])
    assert np.abs(before[:, 20:] - after[:, 20:]).max() > 0.1


def test_unrolled_and_scanned_layers_give_the_same_logits() -> None:
    unrolled, scanned = ModelSignature(SMALL, unroll=True), ModelSignature(SMALL, unroll=False)
    weights = random_weights(unrolled)
    np.testing.assert_allclose(
        logits_of(unrolled, *weights, TOKENS), logits_of(scanned, *weights, TOKENS), atol=1e-5
    )


def test_bfloat16_stays_within_three_percent_of_the_logits_spread() -> None:
    """bfloat16 keeps 8 bits: 0.4 % an operation, growing with the root of the depth."""
    single, half = ModelSignature(SMALL), ModelSignature(SMALL, dtype="bfloat16")
    weights = random_weights(single)
    exact = logits_of(single, *weights, TOKENS)
    with jax.numpy_dtype_promotion("standard"):
        rounded = logits_of(half, *weights, TOKENS)
    error = np.sqrt(np.mean((exact - rounded) ** 2)) / np.std(exact)
    assert 1e-4 < error < 0.03


@pytest.mark.parametrize("targets", [lora.TARGETS, ("q", "v"), ("down",)])
def test_a_fresh_adapter_changes_nothing(targets: tuple[str, ...]) -> None:
    plain = ModelSignature(SMALL)
    adapted = ModelSignature(SMALL, LoraConfig(2, targets))
    adapters, base = fresh(adapted)
    np.testing.assert_array_equal(
        logits_of(adapted, adapters, base, TOKENS), logits_of(plain, base, {}, TOKENS)
    )


@pytest.mark.parametrize("targets", [lora.TARGETS, ("q", "v"), ("down",)])
def test_merged_weights_equal_the_adapter_beside_its_base(targets: tuple[str, ...]) -> None:
    adapted = ModelSignature(SMALL, LoraConfig(2, targets))
    adapters, base = random_weights(adapted)
    used = lora.scaled(adapters, 1.5)
    beside = logits_of(adapted, used, base, TOKENS)
    folded = merged(base, adapters, 1.5)
    assert jax.tree.structure(folded) == jax.tree.structure(base)
    np.testing.assert_allclose(
        logits_of(ModelSignature(SMALL), folded, {}, TOKENS), beside, rtol=0, atol=TOLERANCE
    )
    assert np.abs(beside - logits_of(ModelSignature(SMALL), base, {}, TOKENS)).max() > 0.1


def test_adapters_stand_beside_their_targets_alone() -> None:
    trainable, frozen = abstract_model(ModelSignature(SMALL, LoraConfig(2, ("q", "up"))))[1]
    assert trainable.keys() == {"blocks"}
    assert trainable["blocks"]["attention"].keys() == {"q"}
    assert trainable["blocks"]["mlp"].keys() == {"up"}
    assert trainable["blocks"]["mlp"]["up"]["adapter"]["a"].shape == (3, 24, 2)
    assert "adapter" not in frozen["blocks"]["mlp"]["up"]


def test_a_model_is_created_in_any_thread() -> None:
    """Flax keeps per thread whether axes' names ask for a mesh."""
    shape = replace(SMALL, num_hidden_layers=1)  # which no other test has asked for
    with ThreadPoolExecutor(1) as pool:
        _, (weights, _) = pool.submit(abstract_model, ModelSignature(shape)).result()
    assert weights["blocks"]["mlp"]["up"]["kernel"].shape[0] == 1


def test_fresh_layers_and_seeds_differ() -> None:
    one, other = (fresh(ModelSignature(SMALL), seed)[0] for seed in (0, 1))
    kernel = one["blocks"]["mlp"]["up"]["kernel"]
    assert jnp.all(kernel != other["blocks"]["mlp"]["up"]["kernel"])
    assert jnp.all(kernel[0] != kernel[1])
    assert float(jnp.std(kernel)) == pytest.approx(SMALL.initializer_range, rel=0.1)
