"""Hugging Face folders in and out; what cannot be loaded is refused in one clear line."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from make_golden import GOLDEN, SHAPES, random_tokens, reference_logits
from safetensors.numpy import load_file, save_file
from weights import load, random_weights

from jaxorg.engine.params import abstract_model
from jaxorg.errors import Refusal
from jaxorg.llama import checkpoint
from jaxorg.llama.model import LlamaConfig, RopeScaling
from jaxorg.planning.signature import ModelSignature

CONFIG = LlamaConfig(
    vocab_size=19,
    hidden_size=12,
    intermediate_size=10,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=6,
    max_position_embeddings=64,
    rope_theta=500_000.0,
    rope_scaling=RopeScaling(8.0, 1.0, 4.0, original_max_position_embeddings=16),
    initializer_range=0.3,
)
UNTIED = replace(CONFIG, tie_word_embeddings=False, attention_bias=True, mlp_bias=True)
QWEN2 = replace(CONFIG, head_dim=4, hidden_size=16, qkv_bias=True)
QWEN3 = replace(CONFIG, qk_norm=True, tie_word_embeddings=False)
MISTRAL = replace(CONFIG, sliding_window=40, sliding_layers=(0, 1))
QWEN3_WINDOW = replace(QWEN3, sliding_window=40, sliding_layers=(1,))
FAMILIES = [QWEN2, QWEN3, MISTRAL, QWEN3_WINDOW]
LINEAR_ROPE = replace(CONFIG, rope_scaling=None, linear_factor=4.0)
EMBEDDING = "model.embed_tokens.weight"
UP = "model.layers.1.mlp.up_proj.weight"


def assert_bits_equal(found: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoint.write_config(tmp_path, CONFIG)
    checkpoint.write_weights(tmp_path, random_weights(ModelSignature(CONFIG))[0])
    return tmp_path


@pytest.mark.parametrize(
    "config", [CONFIG, UNTIED, LINEAR_ROPE, replace(CONFIG, rope_scaling=None), *FAMILIES]
)
def test_what_is_written_is_read_back_bit_by_bit(config: LlamaConfig, tmp_path: Path) -> None:
    weights = random_weights(ModelSignature(config))[0]
    checkpoint.write_config(tmp_path, config)
    checkpoint.write_weights(tmp_path, weights)
    assert checkpoint.read_config(tmp_path) == config
    assert_bits_equal(load(tmp_path), weights)


def test_weights_are_written_in_the_precision_asked_for(folder: Path) -> None:
    weights = load(folder)
    checkpoint.write_weights(folder, weights, np.float16)
    held = load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in held.values()} == {np.dtype(np.float16)}
    rounded = jax.tree.map(lambda leaf: leaf.astype(np.float16).astype(np.float32), weights)
    assert_bits_equal(load(folder), rounded)


@pytest.mark.filterwarnings("ignore")  # whatever torch and Transformers say while being imported
@pytest.mark.parametrize("config", [CONFIG, UNTIED, LINEAR_ROPE, *FAMILIES])
def test_transformers_loads_what_is_written(config: LlamaConfig, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    weights = random_weights(ModelSignature(config))[0]
    checkpoint.write_config(tmp_path, config)
    checkpoint.write_weights(tmp_path, weights)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report.values())
    tokens = random_tokens(config.vocab_size, seed=0)
    graph = abstract_model(ModelSignature(config))[0]
    ours = jax.jit(lambda tokens: nnx.merge(graph, weights, {})(tokens)[0])(tokens)
    np.testing.assert_allclose(ours, reference_logits(theirs, tokens), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", SHAPES)
def test_both_spellings_of_the_config_read_alike(name: str) -> None:
    newer, older = GOLDEN / name, GOLDEN / name / "transformers4"
    spellings = [json.loads((each / "config.json").read_text()) for each in (newer, older)]
    assert ["rope_parameters" in each for each in spellings] == [True, False]
    config = checkpoint.read_config(newer)
    assert config == checkpoint.read_config(older)
    given = SHAPES[name]
    assert config.rope_theta == given.get("rope_theta", 10_000.0)
    scaling = given.get("rope_scaling", {"rope_type": "default"})["rope_type"]
    assert (config.rope_scaling is not None) == (scaling == "llama3")
    assert (config.linear_factor != 1) == (scaling == "linear")
    assert config.tie_word_embeddings == given.get("tie_word_embeddings", False)


LLAMA3 = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}
LINEAR = {"rope_type": "linear", "factor": 2.0}
SAID_TWICE: dict[str, tuple[dict[str, Any], str]] = {
    "theta": (
        {"rope_theta": 10000, "rope_parameters": {"rope_theta": 500000}, "rope_scaling": None},
        "rope_theta is 10000, but rope_parameters.rope_theta is 500000; keep",
    ),
    "theta beside a scaling": (
        {"rope_theta": 10000.0, "rope_scaling": {**LINEAR, "rope_theta": 500000}},
        "rope_theta is 10000.0, but rope_scaling.rope_theta is 500000; keep",
    ),
    "both spellings": (
        {"rope_parameters": LINEAR, "rope_scaling": {**LINEAR, "factor": 4}},
        "rope_parameters.factor is 2.0, but rope_scaling.factor is 4; keep",
    ),
    "one spelling plain": (
        {"rope_parameters": {"rope_type": "default"}, "rope_scaling": LINEAR},
        "rope_parameters.rope_type is 'default', but rope_scaling.rope_type is 'linear'; keep",
    ),
    "the type's two names": (
        {"rope_scaling": {**LINEAR, "type": "default"}},
        "rope_scaling.rope_type is 'linear', but rope_scaling.type is 'default'; keep",
    ),
    "the original length": (
        {
            "original_max_position_embeddings": 16,
            "rope_scaling": {**LLAMA3, "original_max_position_embeddings": 32},
        },
        "original_max_position_embeddings is 16, but rope_scaling.original_max_position_embeddings",
    ),
}


@pytest.mark.parametrize(("said", "clue"), SAID_TWICE.values(), ids=SAID_TWICE)
def test_a_rotary_setting_that_is_said_twice_must_say_the_same(
    said: dict[str, Any], clue: str, folder: Path
) -> None:
    edit_config(**said)(folder)
    with pytest.raises(Refusal) as caught:
        checkpoint.read_config(folder)
    assert clue in str(caught.value)


def test_rotary_settings_may_be_repeated(folder: Path) -> None:
    once = {"rope_theta": 500_000.0, "rope_scaling": LINEAR}
    edit_config(**once)(folder)
    expected = checkpoint.read_config(folder)
    assert (expected.rope_theta, expected.linear_factor) == (500_000.0, 2.0)
    both = {"type": "linear", "factor": 2, "rope_theta": 500_000}
    edit_config(rope_parameters=both | LINEAR, partial_rotary_factor=1.0)(folder)
    assert checkpoint.read_config(folder) == expected
    edit_config(rope_theta=None, rope_scaling=None)(folder)
    assert checkpoint.read_config(folder) == expected


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_what_the_config_leaves_out_is_as_in_transformers(family: str, folder: Path) -> None:
    edit_config(model_type=family, sliding_window=None, rope_scaling=LLAMA3)(folder)
    edit_config(rope_theta=None, rms_norm_eps=None, tie_word_embeddings=None)(folder)
    config = checkpoint.read_config(folder)
    assert (config.rope_theta, config.rms_norm_eps) == (10_000.0, 1e-6)
    assert not config.tie_word_embeddings
    # The length before it was extended is then the one that it has.
    assert config.rope_scaling == RopeScaling(8.0, 1.0, 4.0, 64)
    edit_config(original_max_position_embeddings=16)(folder)
    assert checkpoint.read_config(folder).rope_scaling == RopeScaling(8.0, 1.0, 4.0, 16)


def windowed(**changes: Any) -> Callable[[Path], None]:
    """A Qwen whose second layer has a window of 8 tokens, and changes to that."""
    window = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    return edit_config(**{"model_type": "qwen3", **window, **changes})


WINDOWS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "some layers": ({}, (1,)),
    "all layers": ({"max_window_layers": 0}, (0, 1)),
    "no layer": ({"max_window_layers": 2}, ()),
    "no layer by default": ({"max_window_layers": None}, ()),
    "not used": ({"use_sliding_window": False}, ()),
    "none": ({"sliding_window": None}, ()),
    "as long as the model": ({"sliding_window": 64}, ()),
    "by type": ({"layer_types": ["sliding_attention", "full_attention"]}, (0,)),
    "none by type": ({"layer_types": ["full_attention"] * 2}, ()),
    "mistral": ({"model_type": "mistral"}, (0, 1)),
    "mistral without": ({"model_type": "mistral", "sliding_window": None}, ()),
    "llama": ({"model_type": "llama"}, ()),
}


@pytest.mark.parametrize(("changes", "layers"), WINDOWS.values(), ids=WINDOWS)
def test_a_window_counts_where_a_layer_uses_it(
    changes: dict[str, Any], layers: tuple[int, ...], folder: Path
) -> None:
    windowed(**changes)(folder)
    config = checkpoint.read_config(folder)
    assert (config.sliding_window, config.sliding_layers) == (8 if layers else None, layers)
    assert config.context == (("sliding_window", 8) if layers else ("max_position_embeddings", 64))


def test_a_tied_folder_that_transformers_saved_holds_no_head_and_loads() -> None:
    tied = GOLDEN / "gqa_tied"
    assert "lm_head.weight" not in load_file(tied / "model.safetensors")
    assert "head" not in load(tied)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Save the tensors of a folder anew, changed."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_repeated_tied_head_is_passed_over(dtype: Any, folder: Path) -> None:
    rewrite(folder, lambda held: {**held, "lm_head.weight": held[EMBEDDING].astype(dtype)})
    assert_bits_equal(load(folder), random_weights(ModelSignature(CONFIG))[0])


def other_head(folder: Path) -> None:
    def add(held: dict[str, Any]) -> dict[str, Any]:
        head = held[EMBEDDING].copy()
        head[-1, -1] += 1
        return {**held, "lm_head.weight": head}

    rewrite(folder, add)


def test_a_tied_file_may_hold_the_head_alone(folder: Path) -> None:
    rewrite(folder, lambda held: {**held, "lm_head.weight": held.pop(EMBEDDING)})
    assert_bits_equal(load(folder), random_weights(ModelSignature(CONFIG))[0])


def bare(held: dict[str, Any]) -> dict[str, Any]:
    """Tensors as a model without its head names them."""
    return {name.removeprefix("model."): tensor for name, tensor in held.items()}


@pytest.mark.parametrize("config", [CONFIG, UNTIED])
def test_tensors_may_be_named_as_by_a_model_without_its_head(
    config: LlamaConfig, tmp_path: Path
) -> None:
    weights = random_weights(ModelSignature(config))[0]
    checkpoint.write_config(tmp_path, config)
    checkpoint.write_weights(tmp_path, weights)
    buffers = {
        name: np.ones(3, np.float32)
        for name in ("rotary_emb.inv_freq", "layers.0.self_attn.rotary_emb.inv_freq")
    }
    rewrite(tmp_path, lambda held: bare(held) | buffers)
    assert_bits_equal(load(tmp_path), weights)


def test_a_sharded_folder_loads(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    save_file({n: tensors[n] for n in names[:5]}, folder / "model-00001-of-00002.safetensors")
    save_file({n: tensors[n] for n in names[5:]}, folder / "model-00002-of-00002.safetensors")
    assert_bits_equal(load(folder), random_weights(ModelSignature(CONFIG))[0])


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_loads_to_the_same_values(dtype: Any, folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({name: tensor.astype(dtype) for name, tensor in load_file(path).items()}, path)
    expected = jax.tree.map(
        lambda leaf: np.asarray(leaf).astype(dtype).astype(np.float32),
        random_weights(ModelSignature(CONFIG))[0],
    )
    assert_bits_equal(load(folder), expected)


def edit_config(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def edit_tensors(**changes: Any) -> Callable[[Path], None]:
    """Set tensors, whose dots are written as double underscores; None takes one away."""

    def edit(folder: Path) -> None:
        path = folder / "model.safetensors"
        named = {name.replace("__", "."): value for name, value in changes.items()}
        tensors = load_file(path) | named
        save_file({name: value for name, value in tensors.items() if value is not None}, path)

    return edit


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def twice(folder: Path) -> None:
    for number in (1, 2):
        part = folder / f"model-0000{number}-of-00002.safetensors"
        shutil.copy(folder / "model.safetensors", part)
    (folder / "model.safetensors").unlink()


BROKEN = {
    "missing": (edit_tensors(model__norm__weight=None), "'model.norm.weight' is missing"),
    "other head": (
        other_head,
        "'lm_head.weight' differs from 'model.embed_tokens.weight', but the config's "
        "tie_word_embeddings is true; set it to false",
    ),
    "head of another shape": (
        edit_tensors(lm_head__weight=np.ones(7, np.float32)),
        "'lm_head.weight' has shape (7,)",
    ),
    "mixed names": (
        edit_tensors(layers__0__mlp__up_proj__weight=np.ones(1, np.float32)),
        "'layers.0.mlp.up_proj.weight' stands beside 'model.embed_tokens.weight'",
    ),
    "extra": (edit_tensors(extra=np.ones(3, np.float32)), "'extra' is not part of a Llama"),
    "shape": (edit_tensors(model__norm__weight=np.ones(7, np.float32)), "'model.norm.weight'"),
    "layers": (edit_config(num_hidden_layers=1), "'model.layers.1."),
    "depth": (edit_config(num_hidden_layers=3), "'model.layers.2."),
    "untied": (edit_config(tie_word_embeddings=False), "'lm_head.weight' is missing"),
    "quantised": (edit_tensors(model__norm__weight=np.ones(12, np.int8)), "norm.weight' is I8"),
    "twice": (twice, "model-00002-of-00002.safetensors: tensor"),
    "truncated": (truncate, "model.safetensors: broken"),
    "pickle": (pickle_only, "no safetensors"),
    "empty": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "broken"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json: cannot be read"),
    "no json": (lambda folder: (folder / "config.json").write_text("{"), "config.json: cannot"),
    "list": (lambda folder: (folder / "config.json").write_text("[1]"), "model_type"),
    "mixtral": (edit_config(model_type="mixtral"), "model_type is 'mixtral'"),
    "no family": (edit_config(model_type=["llama"]), "model_type is ['llama']"),
    "odd window": (edit_config(model_type="mistral", sliding_window="1"), "sliding_window is '1'"),
    "layer types": (windowed(layer_types="all"), "layer_types is 'all'; it must be a list of 2"),
    "few layer types": (windowed(layer_types=["full_attention"]), "must be a list of 2"),
    "other layer types": (
        windowed(layer_types=["full_attention", "linear_attention"]),
        "known are full_attention and sliding_attention",
    ),
    "no window": (
        windowed(use_sliding_window=False, layer_types=["sliding_attention"] * 2),
        "layer_types has sliding_attention, but there is no sliding_window",
    ),
    "odd layers": (windowed(max_window_layers="1"), "max_window_layers is '1'"),
    "odd flag": (edit_config(tie_word_embeddings="false"), "tie_word_embeddings is 'false'; it"),
    "quantised config": (edit_config(quantization_config={"bits": 4}), "quantization_config"),
    "qwen": (edit_config(model_type="qwen3"), "k_norm.weight' is missing"),
    "gelu": (edit_config(hidden_act="gelu"), "hidden_act is 'gelu'"),
    "rope": (edit_config(rope_scaling={"rope_type": "yarn"}), "rope_type 'yarn'"),
    "old rope": (edit_config(rope_scaling={"type": "dynamic"}), "rope_type 'dynamic'"),
    "odd rope": (edit_config(rope_scaling={"rope_type": ["linear"]}), "rope_type ['linear'] is"),
    "rope list": (edit_config(rope_parameters=[1]), "rope_parameters is"),
    "old rope list": (edit_config(rope_scaling=[1]), "rope_scaling is [1]; it must be an object"),
    "rope of each layer type": (
        edit_config(rope_parameters={"full_attention": {"rope_type": "default"}}),
        "rope_parameters.full_attention is {'rope_type': 'default'}; only one for all layers",
    ),
    "partial rope": (
        edit_config(partial_rotary_factor=0.5),
        "partial_rotary_factor is 0.5; only 1",
    ),
    "partial rope inside": (
        edit_config(rope_scaling=None, rope_parameters={"partial_rotary_factor": 0.5}),
        "rope_parameters.partial_rotary_factor is 0.5",
    ),
    "no factor": (edit_config(rope_scaling={"rope_type": "llama3"}), "factor is None"),
    "linear": (edit_config(rope_scaling={"type": "linear", "factor": 0}), "factor is 0; it must"),
    "theta": (edit_config(rope_theta="big"), "rope_theta is 'big'"),
    "size": (edit_config(hidden_size=-12), "hidden_size is -12"),
    "no size": (edit_config(vocab_size=None), "vocab_size is None"),
    "sharing": (edit_config(num_key_value_heads=3), "4 heads cannot share 3"),
    "odd width": (edit_config(head_dim=5), "width 5"),
}


@pytest.mark.parametrize(("spoil", "clue"), BROKEN.values(), ids=BROKEN)
def test_a_broken_folder_is_refused_in_one_line_that_names_it(
    spoil: Callable[[Path], None], clue: str, folder: Path
) -> None:
    spoil(folder)
    with pytest.raises(Refusal) as caught:
        load(folder)
    line = str(caught.value)
    assert clue in line
    assert line.startswith(str(folder))
    assert "\n" not in line
    assert len(line.removeprefix(str(folder))) < 200


def test_the_digest_tells_weights_from_manners(folder: Path) -> None:
    manners, everything = (checkpoint.digest(folder, weights) for weights in (False, True))
    edit_tensors(model__norm__weight=np.full(12, 2, np.float32))(folder)
    assert checkpoint.digest(folder, False) == manners
    assert checkpoint.digest(folder, True) != everything
    edit_config(rms_norm_eps=0.5)(folder)
    assert checkpoint.digest(folder, False) != manners


@pytest.mark.parametrize("name", ["no-such-model", "no/such/folder", ""])
def test_an_unknown_model_is_refused(name: str) -> None:
    with pytest.raises(Refusal, match=r"base\.model"):
        checkpoint.resolve(name)
