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

from jaxorg.engine.step import abstract_model
from jaxorg.llama import checkpoint
from jaxorg.llama.model import LlamaConfig, RopeScaling
from jaxorg.runtime import Refusal
from jaxorg.signature import ModelStatic

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
EMBEDDING = "model.embed_tokens.weight"
UP = "model.layers.1.mlp.up_proj.weight"


def assert_bits_equal(found: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoint.write_config(tmp_path, CONFIG)
    checkpoint.write_weights(tmp_path, random_weights(ModelStatic(CONFIG))[0])
    return tmp_path


@pytest.mark.parametrize(
    "config", [CONFIG, UNTIED, replace(CONFIG, rope_scaling=None), QWEN2, QWEN3]
)
def test_what_is_written_is_read_back_bit_by_bit(config: LlamaConfig, tmp_path: Path) -> None:
    weights = random_weights(ModelStatic(config))[0]
    checkpoint.write_config(tmp_path, config)
    checkpoint.write_weights(tmp_path, weights)
    assert checkpoint.read_config(tmp_path) == config
    assert_bits_equal(load(tmp_path), weights)


@pytest.mark.filterwarnings("ignore")  # whatever torch and Transformers say while being imported
@pytest.mark.parametrize("config", [CONFIG, UNTIED, QWEN2, QWEN3])
def test_transformers_loads_what_is_written(config: LlamaConfig, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    weights = random_weights(ModelStatic(config))[0]
    checkpoint.write_config(tmp_path, config)
    checkpoint.write_weights(tmp_path, weights)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report.values())
    tokens = random_tokens(config.vocab_size, seed=0)
    graph = abstract_model(ModelStatic(config))[0]
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
    assert (config.rope_scaling is not None) == ("rope_scaling" in given)
    assert config.tie_word_embeddings == given.get("tie_word_embeddings", False)


def test_a_window_that_no_text_outgrows_is_fine(folder: Path) -> None:
    edit_config(model_type="mistral", sliding_window=64)(folder)
    assert checkpoint.read_config(folder) == CONFIG
    edit_config(model_type="qwen2", sliding_window=8, use_sliding_window=False)(folder)
    assert checkpoint.read_config(folder) == replace(CONFIG, qkv_bias=True)


def test_a_tied_folder_that_transformers_saved_holds_no_head_and_loads() -> None:
    tied = GOLDEN / "gqa_tied"
    assert "lm_head.weight" not in load_file(tied / "model.safetensors")
    assert "head" not in load(tied)


def test_a_repeated_tied_head_is_passed_over(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {**tensors, "lm_head.weight": tensors[EMBEDDING].copy()}, folder / "model.safetensors"
    )
    assert_bits_equal(load(folder), random_weights(ModelStatic(CONFIG))[0])


def test_a_sharded_folder_loads(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    save_file({n: tensors[n] for n in names[:5]}, folder / "model-00001-of-00002.safetensors")
    save_file({n: tensors[n] for n in names[5:]}, folder / "model-00002-of-00002.safetensors")
    assert_bits_equal(load(folder), random_weights(ModelStatic(CONFIG))[0])


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_loads_to_the_same_values(dtype: Any, folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({name: tensor.astype(dtype) for name, tensor in load_file(path).items()}, path)
    expected = jax.tree.map(
        lambda leaf: np.asarray(leaf).astype(dtype).astype(np.float32),
        random_weights(ModelStatic(CONFIG))[0],
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
    shutil.copy(folder / "model.safetensors", folder / "copy.safetensors")


BROKEN = {
    "missing": (edit_tensors(model__norm__weight=None), "'model.norm.weight' is missing"),
    "extra": (edit_tensors(extra=np.ones(3, np.float32)), "'extra' is not part of a Llama"),
    "shape": (edit_tensors(model__norm__weight=np.ones(7, np.float32)), "'model.norm.weight'"),
    "layers": (edit_config(num_hidden_layers=1), "'model.layers.1."),
    "depth": (edit_config(num_hidden_layers=3), "'model.layers.2."),
    "untied": (edit_config(tie_word_embeddings=False), "'lm_head.weight' is missing"),
    "quantised": (edit_tensors(model__norm__weight=np.ones(12, np.int8)), "norm.weight' is I8"),
    "twice": (twice, "model.safetensors: tensor"),
    "truncated": (truncate, "model.safetensors: broken"),
    "pickle": (pickle_only, "no safetensors"),
    "empty": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "broken"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json: cannot be read"),
    "no json": (lambda folder: (folder / "config.json").write_text("{"), "config.json: cannot"),
    "list": (lambda folder: (folder / "config.json").write_text("[1]"), "model_type"),
    "mixtral": (edit_config(model_type="mixtral"), "model_type is 'mixtral'"),
    "no family": (edit_config(model_type=["llama"]), "model_type is ['llama']"),
    "window": (edit_config(model_type="mistral", sliding_window=63), "sliding_window is 63, less"),
    "odd window": (edit_config(model_type="mistral", sliding_window="1"), "sliding_window is '1'"),
    "qwen window": (
        edit_config(model_type="qwen3", use_sliding_window=True, sliding_window=8),
        "set max_position_embeddings to 8",
    ),
    "quantised config": (edit_config(quantization_config={"bits": 4}), "quantization_config"),
    "qwen": (edit_config(model_type="qwen3"), "k_norm.weight' is missing"),
    "gelu": (edit_config(hidden_act="gelu"), "hidden_act is 'gelu'"),
    "rope": (edit_config(rope_scaling={"rope_type": "yarn"}), "rope_type 'yarn'"),
    "old rope": (edit_config(rope_scaling={"type": "linear", "factor": 2}), "rope_type 'linear'"),
    "rope list": (edit_config(rope_parameters=[1]), "rope_parameters is"),
    "no factor": (edit_config(rope_scaling={"rope_type": "llama3"}), "factor is None"),
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
