"""Generation with a cache, against plain forward passes over the whole text."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from weights import held, random_weights

from jaxorg.engine.cohort import Scorer
from jaxorg.engine.mesh import make_mesh, parse
from jaxorg.engine.params import Params, abstract_model
from jaxorg.engine.score import prefill
from jaxorg.llama.generate import Asked, generate
from jaxorg.llama.lora import LoraConfig
from jaxorg.llama.model import LlamaConfig, RopeScaling
from jaxorg.planning.signature import ModelSignature

pytestmark = pytest.mark.usefixtures("strict_dtypes")

CONFIG = LlamaConfig(
    vocab_size=29,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=4,
    max_position_embeddings=64,
    rope_scaling=RopeScaling(8.0, 1.0, 4.0, original_max_position_embeddings=8),
    initializer_range=0.4,
    tie_word_embeddings=False,  # a tied model mostly repeats its last token
)
STATIC = ModelSignature(CONFIG)
GRAPH = abstract_model(STATIC)[0]
NEW = 12
PROMPTS = ([3, 1, 4, 1, 5, 9, 2], [6], [5, 3, 5, 8], [9, 7, 9, 3, 2, 3, 8])
WIDTH = 8  # one more than the longest prompt
NOTHING_ENDS = ()


def padded(prompts: tuple[list[int], ...] = PROMPTS) -> tuple[jax.Array, Asked]:
    """Prompts with a padding of tokens that would disturb if they were seen, and a row of each."""
    rows = [prompt + [11] * (WIDTH - len(prompt)) for prompt in prompts]
    lengths = [len(prompt) for prompt in prompts]
    about = (range(len(prompts)), lengths, [prompt[-1] for prompt in prompts])
    return jnp.asarray(rows, jnp.int32), Asked(*(jnp.asarray(x, jnp.int32) for x in about))


def keys(seed: int = 0, count: int = len(PROMPTS)) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


@partial(jax.jit, static_argnames=("new_tokens", "end_ids"))
def continued(
    trainable: Any,
    prompts: jax.Array,
    rows: Asked,
    keys: jax.Array,
    temperature: float | jax.Array = 0.0,
    new_tokens: int = NEW,
    end_ids: tuple[int, ...] = NOTHING_ENDS,
) -> jax.Array:
    options = {"new_tokens": new_tokens, "end_ids": end_ids}
    params = Params(trainable, {})
    warmth = jnp.broadcast_to(jnp.asarray(temperature, jnp.float32), rows.of.shape)
    read = prefill(GRAPH, params, prompts)
    return generate(GRAPH, params, read, rows, keys, warmth, **options)


@jax.jit
def whole(trainable: Any, tokens: jax.Array) -> jax.Array:
    return nnx.merge(GRAPH, trainable, {})(tokens)[0]


def one_row(text: list[int]) -> jax.Array:
    """A text, filled up on the right: always one shape, and later tokens are not seen."""
    return jnp.asarray([text + [0] * (WIDTH + NEW - len(text))], jnp.int32)


def by_full_passes(trainable: Any, prompt: list[int]) -> list[int]:
    """Greedy decoding without a cache."""
    text = list(prompt)
    for _ in range(NEW):
        text.append(int(np.argmax(whole(trainable, one_row(text))[0, len(text) - 1])))
    return text[len(prompt) :]


@pytest.mark.parametrize("seed", range(3))
def test_cached_generation_equals_greedy_decoding_by_full_passes(seed: int) -> None:
    trainable, _ = random_weights(STATIC, seed)
    expected = np.asarray([by_full_passes(trainable, prompt) for prompt in PROMPTS])
    assert len(np.unique(expected)) > 5
    np.testing.assert_array_equal(continued(trainable, *padded(), keys()), expected)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    trainable, _ = random_weights(STATIC)
    together = continued(trainable, *padded(), keys(), 1.0)
    for i, prompt in enumerate(PROMPTS):
        alone = continued(trainable, *padded((prompt,)), keys()[i : i + 1], 1.0)
        np.testing.assert_array_equal(alone[0], together[i])


def test_sampling_is_reproducible_by_key() -> None:
    trainable, _ = random_weights(STATIC)
    first, again, other = (continued(trainable, *padded(), keys(s), 1.0) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.mean(np.asarray(first) != np.asarray(other)) > 0.5


def test_every_token_is_drawn_afresh() -> None:
    trainable, _ = random_weights(STATIC)
    hot = continued(trainable, *padded(), keys(), 1e4)  # all tokens alike likely
    assert all(len(set(row)) > NEW / 2 for row in hot.tolist())


def test_sampling_at_a_vanishing_temperature_is_greedy() -> None:
    trainable, _ = random_weights(STATIC)
    greedy, cold = (continued(trainable, *padded(), keys(), t) for t in (0.0, 1e-4))
    np.testing.assert_array_equal(greedy, cold)


def test_samples_follow_the_models_distribution() -> None:
    trainable, _ = random_weights(STATIC)
    count, temperature = 4000, 2.0
    prompts, rows = padded()
    alike = Asked(*(jnp.repeat(part[:1], count) for part in rows))
    draws = continued(trainable, prompts, alike, keys(0, count), temperature, new_tokens=1)
    found = np.bincount(np.asarray(draws)[:, 0], minlength=CONFIG.vocab_size) / count
    logits = whole(trainable, jnp.asarray([PROMPTS[0]], jnp.int32))[0, -1]
    expected = np.asarray(jax.nn.softmax(logits / temperature))
    error = np.sqrt(expected * (1 - expected) / count)
    assert np.all(np.abs(found - expected) < 5 * error + 1 / count)


def test_a_row_repeats_its_end_token() -> None:
    trainable, _ = random_weights(STATIC)
    free = np.asarray(continued(trainable, *padded(), keys(), 2.0))
    ends = (int(free[0, 3]), int(free[2, 5]))
    ended = np.asarray(continued(trainable, *padded(), keys(), 2.0, end_ids=ends))
    for without, row in zip(free, ended, strict=True):
        places = np.flatnonzero(np.isin(without, ends))
        stop = places[0] if len(places) else NEW
        np.testing.assert_array_equal(row[: stop + 1], without[: stop + 1])
        assert np.all(row[stop:] == row[min(stop, NEW - 1)])
    assert len({tuple(row == row[-1]) for row in ended}) > 1  # they end at different places


@pytest.mark.parametrize(("mesh", "width"), [("cpu-2", 1), ("cpu-1", 2)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_stacked_generation_equals_solo(mesh: str, width: int, temperature: float) -> None:
    scorer = Scorer(STATIC, make_mesh(parse(mesh)), width)
    models = [random_weights(STATIC, seed)[0] for seed in (0, 1)]
    prompts, rows = padded()
    turned = rows._replace(of=rows.of[::-1]), keys(1)
    inputs = [(prompts, rows, keys(0)), (prompts[::-1], *turned)]
    read, *asked = (
        scorer.place(jax.tree.map(lambda *x: jnp.stack(x), *part))
        for part in zip(*inputs, strict=True)
    )
    params = Params(scorer.place_weights([held(model) for model in models]), {})
    stacked = scorer.generator(NEW, NOTHING_ENDS)(
        params,
        scorer.passes.prefill(params, read),
        *asked,
        jnp.full(len(PROMPTS), temperature, jnp.float32),
    )
    for model, own, together in zip(models, inputs, stacked, strict=True):
        np.testing.assert_array_equal(continued(model, *own, temperature), together)


def test_greedy_and_sampled_rows_go_on_from_one_prompt() -> None:
    trainable, _ = random_weights(STATIC)
    prompts, rows = padded()
    each = [continued(trainable, prompts, rows, keys(), t) for t in (0.0, 1.0)]
    twice = Asked(*(jnp.tile(part, 2) for part in rows))
    warmth = jnp.repeat(jnp.asarray([0.0, 1.0]), len(PROMPTS))
    both = continued(trainable, prompts, twice, jnp.tile(keys(), 2), warmth)
    np.testing.assert_array_equal(both, np.concatenate(each))
    assert np.mean(np.asarray(each[0]) != np.asarray(each[1])) > 0.3


def test_a_prompt_may_end_with_a_token_that_ends_answers() -> None:
    trainable, _ = random_weights(STATIC)
    free = np.asarray(continued(trainable, *padded(), keys()))
    last = int(PROMPTS[0][-1])
    ended = np.asarray(continued(trainable, *padded(), keys(), end_ids=(last,)))
    np.testing.assert_array_equal(ended[0, 0], free[0, 0])
    assert len(set(ended[0].tolist())) > 1 or last not in free[0]


def test_models_stop_together_and_copy_no_cache() -> None:
    """A loop that each left by itself would choose between old and new caches at each step."""
    scorer = Scorer(STATIC, make_mesh(parse("cpu-1")), 2)
    program: Any = scorer.generator(NEW, NOTHING_ENDS)
    rows = len(PROMPTS)
    lowered = program.lower(*scorer.abstract_generate(rows, WIDTH, rows)).as_text()
    cache = f"tensor<2x2x{rows}x{WIDTH + NEW}x2x4xf32>"  # runs, layers, B, S, K, H
    assert "stablehlo.while" in lowered
    assert "stablehlo.case" in lowered or "stablehlo.if" in lowered  # greedy draws nothing
    assert cache in lowered
    assert not [line for line in lowered.splitlines() if "select" in line and cache in line]


def test_adapters_and_scanned_layers_generate_as_their_forward_passes_do() -> None:
    signature = ModelSignature(CONFIG, LoraConfig(2), unroll=False)
    graph = abstract_model(signature)[0]
    params = random_weights(signature)
    prompts, rows = padded()
    cold = jnp.zeros(len(PROMPTS), jnp.float32)
    run = jax.jit(partial(generate, graph, new_tokens=NEW, end_ids=NOTHING_ENDS))
    found = run(params, jax.jit(partial(prefill, graph))(params, prompts), rows, keys(), cold)
    forward = jax.jit(lambda tokens: nnx.merge(graph, *params)(tokens)[0])
    for prompt, answer in zip(PROMPTS, found.tolist(), strict=True):
        logits = forward(one_row(prompt + answer))
        expected = jnp.argmax(logits[0], axis=-1)[len(prompt) - 1 :][:NEW]
        np.testing.assert_array_equal(answer, expected)
