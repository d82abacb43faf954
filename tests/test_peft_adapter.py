"""Adapters that others trained: merged as PEFT merges them, or refused in one line."""

import json
import math
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tiny import TINY
from weights import load, random_weights

from jaxorg.engine.step import abstract_model
from jaxorg.errors import Refusal
from jaxorg.llama import checkpoint
from jaxorg.llama.model import LlamaConfig
from jaxorg.llama.peft_adapter import read_adapter
from jaxorg.llama.peft_config import PeftConfig, matching
from jaxorg.llama.peft_merged import merged
from jaxorg.reading import Bounds, Names, everything, whole
from jaxorg.signature import ModelStatic

TIED = replace(TINY, vocab_size=48, intermediate_size=40, num_hidden_layers=3)
UNTIED = replace(TIED, tie_word_embeddings=False)
BIASED = replace(UNTIED, attention_bias=True, mlp_bias=True)
QWEN = replace(TIED, qkv_bias=True)

WEIGHTS = "adapter_model.safetensors"
needs_peft = pytest.mark.skipif(not find_spec("peft"), reason="needs peft")
live = pytest.mark.filterwarnings("ignore")  # whatever torch, Transformers and PEFT say


def write_base(folder: Path, config: LlamaConfig) -> Path:
    """Write a base of random weights, none of which are zeros or alike."""
    folder.mkdir()
    checkpoint.write_config(folder, config)
    checkpoint.write_weights(folder, random_weights(ModelStatic(config))[0])
    return folder


def shapes_of(config: LlamaConfig) -> Any:
    return abstract_model(ModelStatic(config))[1]


def ours(base: Path, adapter: Path) -> Any:
    """All weights of a base with an adapter in them."""
    config = checkpoint.read_config(base)
    shapes = shapes_of(config)
    read = merged(checkpoint.reader(base, shapes), read_adapter(adapter, config))
    return everything(read, shapes)


# Parity with PEFT

LORA = {"r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "down_proj"]}
NAMES = [f"model.layers.{layer}.self_attn.k_proj" for layer in (0, 2)]
READ: dict[str, tuple[LlamaConfig, dict[str, Any]]] = {
    "lora": (TIED, {}),
    "rslora": (TIED, {"use_rslora": True}),
    "fraction": (TIED, {"lora_alpha": 0.5}),
    "rank pattern": (TIED, {"rank_pattern": {"q_proj": 2, r"layers\.(1|2)\..*v_proj": 5}}),
    "first rank pattern": (TIED, {"rank_pattern": {"q_proj": 5, "self_attn.q_proj": 2, "o": 4}}),
    # PEFT saves patterns in the order of their texts, and then applies another than it trained.
    "first alpha pattern": (TIED, {"alpha_pattern": {"self_attn.q_proj": 2, "q_proj": 5}}),
    "anchored": (TIED, {"alpha_pattern": {"^model.layers.0.mlp.down_proj": 9, "proj": 2}}),
    "patterns": (
        TIED,
        {"use_rslora": True, "rank_pattern": {"v_proj": 4}, "alpha_pattern": {".*_proj": 3}},
    ),
    "all linear": (UNTIED, {"target_modules": "all-linear"}),
    "regex": (TIED, {"target_modules": r"model\.layers\.[12]\.(mlp|self_attn)\.(up|k)_proj"}),
    "names": (TIED, {"target_modules": [*NAMES, "gate_proj"], "layers_to_transform": [1]}),
    "one layer": (TIED, {"layers_to_transform": 2, "layers_pattern": "layers"}),
    "layers": (TIED, {"layers_to_transform": [0, 2], "layers_pattern": ["h", "layers"]}),
    "excluded": (TIED, {"exclude_modules": ["layers.1.self_attn.q_proj", "v_proj"]}),
    "excluded by regex": (TIED, {"exclude_modules": r".*\.0\..*"}),
    "no targets": (TIED, {"target_modules": None}),
    "fan in": (TIED, {"fan_in_fan_out": True}),
    "gaussian": (TIED, {"init_lora_weights": "gaussian"}),
    "tables": (UNTIED, {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "dora": (TIED, {"use_dora": True}),
    "dora with rslora": (UNTIED, {"use_dora": True, "use_rslora": True}),
    "dora of the head": (UNTIED, {"use_dora": True, "target_modules": ["lm_head", "o_proj"]}),
    "whole tables": (UNTIED, {"modules_to_save": ["embed_tokens", "lm_head"]}),
    "norms": (TIED, {"modules_to_save": ["norm"]}),
    "whole block": (BIASED, {"modules_to_save": ["layers.1.mlp"]}),
    "tied table": (TIED, {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
    "tied head": (TIED, {"modules_to_save": ["lm_head"], "ensure_weight_tying": True}),
    "tokens": (UNTIED, {"trainable_token_indices": [3, 40, 7]}),
    "tied tokens": (TIED, {"trainable_token_indices": {"embed_tokens": [3, 40, 7]}}),
    "all biases": (BIASED, {"bias": "all"}),
    "biases of Qwen2": (QWEN, {"bias": "lora_only"}),
    "own biases": (BIASED, {"lora_bias": True}),
}


def named(name: str, tensor: np.ndarray) -> tuple[str, np.ndarray]:
    return name.replace(".weight", ".default.weight"), tensor


Respell = Callable[[str, np.ndarray], tuple[str, np.ndarray]]
SPELLINGS: dict[str, Respell] = {
    "bfloat16": lambda name, tensor: (name, tensor.astype(ml_dtypes.bfloat16)),
    "float16": lambda name, tensor: (name, tensor.astype(np.float16)),
    "with the adapter's name": named,
    "magnitudes of modules": lambda name, tensor: (
        f"{name}.weight" if name.endswith("lora_magnitude_vector") else name,
        tensor,
    ),
}


@live
@needs_peft
@pytest.mark.parametrize(("config", "said"), READ.values(), ids=READ)
def test_weights_are_those_that_peft_merges(
    config: LlamaConfig, said: Mapping[str, Any], tmp_path: Path
) -> None:
    base = write_base(tmp_path / "base", config)
    adapter = train_adapter(base, tmp_path / "adapter", said)
    assert_merged_alike(base, adapter, tmp_path / "merged")


@live
@needs_peft
@pytest.mark.parametrize("respell", SPELLINGS.values(), ids=SPELLINGS)
def test_tensors_are_known_as_peft_knows_them(respell: Respell, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", TIED)
    adapter = train_adapter(base, tmp_path / "adapter", {"use_dora": respell is not named})
    held = load_file(adapter / WEIGHTS)
    save_file(dict(respell(*each) for each in held.items()), adapter / WEIGHTS)
    assert_merged_alike(base, adapter, tmp_path / "merged")


def train_adapter(base: Path, folder: Path, said: Mapping[str, Any]) -> Path:
    """An adapter with random weights, as PEFT saves it."""
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    config = peft.LoraConfig(**{**LORA, "task_type": "CAUSAL_LM", **said})
    model = peft.get_peft_model(transformers_model(base), config)
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder


def assert_merged_alike(base: Path, adapter: Path, place: Path) -> None:
    """Our weights are those that PEFT merges, and others than the base's."""
    peft = pytest.importorskip("peft")
    theirs = peft.PeftModel.from_pretrained(transformers_model(base), adapter).merge_and_unload()
    if theirs.config.tie_word_embeddings:
        assert theirs.lm_head.weight is theirs.model.embed_tokens.weight
    theirs.save_pretrained(place)
    mine = ours(base, adapter)
    jax.tree.map(assert_close, mine, load(place))
    changes = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b))), mine, load(base))
    assert max(jax.tree.leaves(changes)) > 0.05


def transformers_model(folder: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")


def assert_close(mine: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


# By hand: adapters of one or two modules

Tensors = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]
LAYER = "model.layers.1"
Q, UP = f"{LAYER}.self_attn.q_proj", f"{LAYER}.mlp.up_proj"
NORM = f"{LAYER}.input_layernorm"
EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
TOKENS = f"{EMBEDDING}.token_adapter.trainable_tokens_delta"


def pair(module: str, rank: int = 2, ins: int = 32, outs: int = 32) -> dict[str, tuple[int, ...]]:
    """The shapes of one module's A and B."""
    return {f"{module}.lora_A.weight": (rank, ins), f"{module}.lora_B.weight": (outs, rank)}


def low_rank(held: Tensors, module: str = Q) -> np.ndarray:
    """B A."""
    change: np.ndarray = held[f"{module}.lora_B.weight"] @ held[f"{module}.lora_A.weight"]
    return change


def drawn(shapes: Shapes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def write_adapter(folder: Path, held: Tensors, **said: Any) -> Path:
    """Write an adapter of rank 2 and alpha 6."""
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": [Q], **said}
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file({f"base_model.model.{name}": held[name] for name in held}, folder / WEIGHTS)
    return folder


def hand_lora(held: Tensors, base: Tensors, scale: float = 3.0) -> dict[str, np.ndarray]:
    return {f"{Q}.weight": base[f"{Q}.weight"] + scale * low_rank(held)}


def hand_patterns(held: Tensors, base: Tensors) -> dict[str, np.ndarray]:
    return hand_lora(held, base) | {
        f"{UP}.weight": base[f"{UP}.weight"] + 0.5 * low_rank(held, UP)  # alpha 2, rank 4
    }


def hand_dora(held: Tensors, base: Tensors) -> dict[str, np.ndarray]:
    weight, magnitudes = hand_lora(held, base)[f"{Q}.weight"], held[f"{Q}.lora_magnitude_vector"]
    rows = zip(magnitudes, weight, strict=True)
    return {f"{Q}.weight": np.stack([m * row / math.hypot(*row) for m, row in rows])}


def hand_tables(held: Tensors, base: Tensors) -> dict[str, np.ndarray]:
    a, b = (held[f"{EMBEDDING}.lora_embedding_{side}"] for side in "AB")
    return {
        f"{EMBEDDING}.weight": base[f"{EMBEDDING}.weight"] + 3 * (b @ a).T,
        f"{HEAD}.weight": base[f"{HEAD}.weight"] + 3 * low_rank(held, HEAD),
    }


def hand_whole(held: Tensors, base: Tensors) -> dict[str, np.ndarray]:
    return hand_lora(held, base) | {name: held[name] for name in held if name in base}


def hand_biases(held: Tensors, base: Tensors) -> dict[str, np.ndarray]:
    bias = held[f"{Q}.base_layer.bias"] + 3 * held[f"{Q}.lora_B.bias"]
    return hand_lora(held, base) | {f"{Q}.bias": bias}


def hand_base(held: Tensors, base: Tensors) -> dict[str, np.ndarray]:
    return {f"{Q}.weight": held[f"{Q}.base_layer.weight"] + 3 * low_rank(held)}


def hand_tokens(held: Tensors, base: Tensors) -> dict[str, np.ndarray]:
    table = base[f"{EMBEDDING}.weight"].copy()
    table[[40, 3]] = held[TOKENS]
    return hand_lora(held, base) | {f"{EMBEDDING}.weight": table}


Change = Callable[[Tensors, Tensors], dict[str, np.ndarray]]
BY_HAND: dict[str, tuple[LlamaConfig, dict[str, Any], Shapes, Change]] = {
    "lora": (TIED, {}, pair(Q), hand_lora),
    "rslora": (
        TIED,
        {"use_rslora": True},
        pair(Q),
        lambda held, base: hand_lora(held, base, 6 / math.sqrt(2)),
    ),
    "patterns": (
        TIED,
        {
            "target_modules": r".*\.1\..*(up|q)_proj",
            "rank_pattern": {"up_proj": 4},
            "alpha_pattern": {"mlp.up_proj": 2, "up_proj": 100},
        },
        {**pair(Q), **pair(UP, 4, 32, 40)},
        hand_patterns,
    ),
    "layer": (
        TIED,
        {"target_modules": ["q_proj"], "layers_to_transform": [1]},
        pair(Q),
        hand_lora,
    ),
    "dora": (
        TIED,
        {"use_dora": True},
        {**pair(Q), f"{Q}.lora_magnitude_vector": (32,)},
        hand_dora,
    ),
    "tables": (
        UNTIED,
        {"target_modules": [EMBEDDING, HEAD]},
        {
            f"{EMBEDDING}.lora_embedding_A": (2, 48),
            f"{EMBEDDING}.lora_embedding_B": (32, 2),
            **pair(HEAD, 2, 32, 48),
        },
        hand_tables,
    ),
    "norm and head": (
        UNTIED,
        {"modules_to_save": [NORM, HEAD]},
        {**pair(Q), f"{NORM}.weight": (32,), f"{HEAD}.weight": (48, 32)},
        hand_whole,
    ),
    "tied head": (
        TIED,
        {"modules_to_save": [EMBEDDING], "ensure_weight_tying": True},
        {**pair(Q), f"{EMBEDDING}.weight": (48, 32)},
        hand_whole,
    ),
    "biases": (
        QWEN,
        {"bias": "lora_only", "lora_bias": True},
        {**pair(Q), f"{Q}.base_layer.bias": (32,), f"{Q}.lora_B.bias": (32,)},
        hand_biases,
    ),
    "base beside": (TIED, {}, {**pair(Q), f"{Q}.base_layer.weight": (32, 32)}, hand_base),
    "tokens": (
        TIED,
        {"trainable_token_indices": [40, 3]},
        {**pair(Q), TOKENS: (2, 32)},
        hand_tokens,
    ),
}


@pytest.mark.parametrize(("config", "said", "shapes", "change"), BY_HAND.values(), ids=BY_HAND)
def test_weights_are_those_computed_by_hand(
    config: LlamaConfig, said: Mapping[str, Any], shapes: Shapes, change: Change, tmp_path: Path
) -> None:
    base, held = write_base(tmp_path / "base", config), drawn(shapes)
    mine = ours(base, write_adapter(tmp_path / "adapter", held, **said))
    path = base / "model.safetensors"
    before = load_file(path)
    changed = change(held, before)
    assert all(np.max(np.abs(changed[name] - before[name])) > 0.05 for name in changed)
    save_file({**before, **changed}, path)
    jax.tree.map(assert_close, mine, load(base))


# Part by part


@pytest.fixture
def everywhere(tmp_path: Path) -> tuple[Path, Path]:
    """An untied base, and an adapter with DoRA in all its layers and rows of its embedding."""
    matrices = {"self_attn.q_proj": (32, 32), "mlp.up_proj": (32, 40), "mlp.down_proj": (40, 32)}
    modules = {f"model.layers.{n}.{name}": matrices[name] for n in range(3) for name in matrices}
    shapes: dict[str, tuple[int, ...]] = {TOKENS: (2, 32)}
    for module, (ins, outs) in {**modules, HEAD: (32, 48)}.items():
        shapes |= {**pair(module, 2, ins, outs), f"{module}.lora_magnitude_vector": (outs,)}
    adapter = write_adapter(
        tmp_path / "adapter",
        drawn(shapes),
        target_modules=["q_proj", "up_proj", "down_proj", HEAD],
        use_dora=True,
        trainable_token_indices=[5, 45],
    )
    return write_base(tmp_path / "base", UNTIED), adapter


def test_parts_are_those_of_the_whole(everywhere: tuple[Path, Path]) -> None:
    base, folder = everywhere
    shapes, dtype = shapes_of(UNTIED), np.dtype(np.float32)
    read = merged(checkpoint.reader(base, shapes), read_adapter(folder, UNTIED))
    for path, shape in jax.tree_util.tree_leaves_with_path(shapes):
        names = tuple(key.key for key in path)
        all_of_it = read(names, whole(shape.shape), dtype)
        for third in range(3):
            bounds = tuple((size * third // 3, size * (third + 1) // 3) for size in shape.shape)
            part = all_of_it[tuple(slice(*each) for each in bounds)]
            np.testing.assert_allclose(read(names, bounds, dtype), part, rtol=1e-6, atol=1e-6)


def test_layers_are_changed_one_after_another(everywhere: tuple[Path, Path]) -> None:
    base, folder = everywhere
    shapes = shapes_of(UNTIED)
    asked: list[Bounds] = []

    def below(names: Names, bounds: Bounds, dtype: np.dtype) -> np.ndarray:
        asked.append(bounds)
        return checkpoint.reader(base, shapes)(names, bounds, dtype)

    read, part = merged(below, read_adapter(folder, UNTIED)), ((0, 3), (0, 8), (0, 4))
    read(("blocks", "mlp", "gate", "kernel"), part, np.dtype(np.float16))
    assert asked == [part]  # which no adapter changes
    asked.clear()
    read(("blocks", "mlp", "up", "kernel"), part, np.dtype(np.float16))
    assert asked == [((n, n + 1), (0, 32), (0, 4)) for n in range(3)]  # norms are of whole rows


# What is refused

FITTING = {
    name: s for n in range(3) for name, s in pair(f"model.layers.{n}.self_attn.q_proj").items()
}
Q_PROJ = {"target_modules": ["q_proj"]}

# What adapter_config.json says beside `Q_PROJ`, and a word of the refusal after the key.
REFUSED_SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"peft_type": "LOHA"}, "peft_type is 'LOHA'; it must be 'LORA'"),
    ({"peft_type": None}, "peft_type is missing"),
    ({"peft_type": ["LORA"]}, "peft_type is ['LORA']"),
    ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS'"),
    ({"r": 0}, "r is 0"),
    ({"r": 10**9}, "r is 1000000000"),
    ({"r": 2.0}, "r is 2.0"),
    ({"r": True}, "r is True"),
    ({"lora_alpha": math.nan}, "lora_alpha is nan"),
    ({"lora_alpha": math.inf}, "lora_alpha is inf"),
    ({"lora_alpha": 10**400}, "lora_alpha is a number of"),
    ({"lora_alpha": "16"}, "lora_alpha is '16'"),
    ({"use_rslora": "yes"}, "use_rslora is 'yes'"),
    ({"rank_pattern": {"q_proj": 0}}, "rank_pattern"),
    ({"rank_pattern": {"q_proj": 3}}, "has shape (2, 32)"),
    ({"rank_pattern": ["q_proj"]}, "rank_pattern"),
    ({"alpha_pattern": {"q_proj": math.nan}}, "alpha_pattern"),
    ({"alpha_pattern": {"(q": 1}}, "alpha_pattern has '(q'"),
    ({"bias": "some"}, "bias is 'some'"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
    ({"init_lora_weights": "pissa_niter_16"}, "init_lora_weights is 'pissa_niter_16'"),
    ({"init_lora_weights": "olora"}, "init_lora_weights is 'olora'"),
    ({"init_lora_weights": "corda"}, "init_lora_weights is 'corda'"),
    ({"init_lora_weights": "loftq"}, "init_lora_weights is 'loftq'"),
    ({"init_lora_weights": "lora_ga"}, "init_lora_weights is 'lora_ga'"),
    ({"target_modules": []}, "target_modules is []"),
    ({"target_modules": ["c_attn"]}, "target_modules is ['c_attn']"),
    ({"target_modules": 3}, "target_modules is 3"),
    ({"target_modules": ["q_proj", HEAD]}, "takes in lm_head, but the base ties"),
    ({"target_modules": ["q_proj", EMBEDDING]}, "takes in model.embed_tokens, but the base ties"),
    ({"target_modules": r"(?!x).*q_proj"}, "target_modules has '(?!x).*q_proj'"),
    ({"target_modules": "q_proj("}, "target_modules has 'q_proj('"),
    ({"target_modules": ".*q_proj", "layers_to_transform": [1]}, "layers_to_transform is [1]"),
    ({"layers_pattern": ["layers"]}, "layers_pattern is ['layers']"),
    ({"layers_to_transform": [-1]}, "layers_to_transform"),
    ({"layers_to_transform": [1]}, "is not what adapter_config.json asks for"),
    ({"modules_to_save": ["self_attn.q_proj"]}, "target_modules is ['q_proj']"),
    ({"modules_to_save": ["j"]}, "modules_to_save takes in model.layers.0.self_attn.q_proj"),
    ({"modules_to_save": ["norm|x"]}, "modules_to_save is 'norm|x'"),
    ({"modules_to_save": ["norm"]}, "model.norm.weight' is missing"),
    ({"modules_to_save": [HEAD]}, "lm_head.weight' is missing"),
    ({"lora_bias": True}, "lora_bias is true for model.layers.0.self_attn.q_proj"),
    ({"lora_bias": True, "use_dora": True}, "lora_bias is True"),
    ({"use_dora": True}, "q_proj.lora_magnitude_vector' is missing"),
    ({"trainable_token_indices": [1, 2]}, "trainable_tokens_delta' is missing"),
    ({"trainable_token_indices": [1, 48]}, "trainable_token_indices is [1, 48]"),
    ({"trainable_token_indices": [1, 1]}, "trainable_token_indices is [1, 1]"),
    ({"trainable_token_indices": {"lm_head": [1]}}, "trainable_token_indices names 'lm_head'"),
    ({"use_qalora": True}, "has 'use_qalora'"),
    ({"layer_replication": [[0, 2], [1, 3]]}, "has 'layer_replication'"),
    ({"target_parameters": ["mlp.experts"]}, "has 'target_parameters'"),
    ({"alora_invocation_tokens": [1]}, "has 'alora_invocation_tokens'"),
    ({"arrow_config": {"top_k": 3}}, "has 'arrow_config'"),
    ({"megatron_config": {"a": 1}}, "has 'megatron_config'"),
    ({"of a PEFT to come": 1}, "has 'of a PEFT to come'"),
    ({"a\nb": 1}, "has 'a\\nb'"),
]


@pytest.mark.parametrize(("said", "clue"), REFUSED_SETTINGS, ids=lambda x: str(x)[:40])
def test_settings_that_are_not_read_are_refused_by_name(
    said: dict[str, Any], clue: str, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "adapter", drawn(FITTING), **{**Q_PROJ, **said})
    assert clue in refusal(folder)


def test_settings_that_change_no_weight_are_passed_over(tmp_path: Path) -> None:
    said: dict[str, Any] = {
        "auto_mapping": {"base_model_class": "X"}, "base_model_name_or_path": "../../etc/passwd",
        "eva_config": None, "fan_in_fan_out": True, "inference_mode": True, "loftq_config": {},
        "lora_dropout": 0.1, "megatron_core": "megatron.core", "peft_version": "0.99",
        "revision": "main", "of a PEFT to come": False, "another": [], "use_qalora": False,
        "qalora_group_size": 16, "layers_to_transform": [], "layers_pattern": "",
    }  # fmt: skip
    folder = write_adapter(tmp_path / "adapter", drawn(FITTING), **{**Q_PROJ, **said})
    assert len(read_adapter(folder, TIED).loras) == 3


Q0 = "model.layers.0.self_attn.q_proj"
REFUSED_TENSORS: dict[str, tuple[Shapes, str]] = {
    "another width": (
        {**FITTING, f"{Q0}.lora_A.weight": (2, 64)},
        f"tensor 'base_model.model.{Q0}.lora_A.weight' has shape (2, 64), but",
    ),
    "another rank": ({**FITTING, f"{Q0}.lora_B.weight": (32, 3)}, "has shape (32, 3), but"),
    "no matrix": ({**FITTING, f"{Q0}.lora_A.weight": (64,)}, "has shape (64,), but"),
    "too many layers": (
        {**FITTING, **pair("model.layers.7.self_attn.q_proj")},
        "is of layer 7, but the base has 3",
    ),
    "another family": (
        {**FITTING, **pair("transformer.h.0.attn.c_attn")},
        "belongs to no module of the base",
    ),
    "no target": ({**FITTING, **pair(UP, 2, 32, 40)}, "is not what adapter_config.json asks for"),
    "nothing": ({}, "is missing, which adapter_config.json asks for"),
    "half": (pair(Q), f"tensor 'base_model.model.{Q0}.lora_A.weight' is missing"),
    "one of two": (
        {**FITTING, f"{Q0}.lora_A.other.weight": (2, 32), f"{Q0}.lora_A.some.weight": (2, 32)},
        "holds the adapters 'other' and 'some'",
    ),
    "twice": ({**FITTING, f"{Q0}.lora_A.other.weight": (2, 32)}, "is there twice"),
    "base of an adapted module": ({**FITTING, f"{Q0}.weight": (32, 32)}, "is not what"),
    "bias where none is": ({**FITTING, f"{Q0}.base_layer.bias": (32,)}, "is not what"),
    "path": ({**FITTING, "../../etc/passwd": (2,)}, "belongs to no module of the base"),
}


@pytest.mark.parametrize(("shapes", "clue"), REFUSED_TENSORS.values(), ids=REFUSED_TENSORS)
def test_tensors_that_do_not_belong_are_refused_by_name(
    shapes: Shapes, clue: str, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "adapter", drawn(shapes), **Q_PROJ)
    assert clue in refusal(folder)


@pytest.mark.parametrize("module", [EMBEDDING, HEAD])
def test_a_table_of_its_own_is_refused_where_the_base_ties_them(
    module: str, tmp_path: Path
) -> None:
    held = drawn({**FITTING, f"{module}.weight": (48, 32)})
    folder = write_adapter(tmp_path / "adapter", held, **Q_PROJ, modules_to_save=[module])
    assert f"brings {module} apart from the other" in refusal(folder)
    write_adapter(folder, held, **Q_PROJ)  # PEFT puts it into both
    assert read_adapter(folder, TIED).changes(EMBEDDING)


def test_two_tables_for_one_must_be_equal(tmp_path: Path) -> None:
    held = drawn({**FITTING, f"{EMBEDDING}.weight": (48, 32)})
    held[f"{HEAD}.weight"] = held[f"{EMBEDDING}.weight"].copy()
    folder = write_adapter(tmp_path / "adapter", held, **Q_PROJ)
    assert read_adapter(folder, TIED).changes(EMBEDDING)
    held[f"{HEAD}.weight"][0, 0] += 1
    write_adapter(folder, held, **Q_PROJ)
    assert "'lm_head.weight' differs from" in refusal(folder)


def refusal(folder: Path, config: LlamaConfig = TIED) -> str:
    """The one line that an adapter is refused in."""
    with pytest.raises(Refusal) as caught:
        read_adapter(folder, config)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 500 + len(str(folder))
    return said


# Hostile folders


@pytest.fixture
def fitting(tmp_path: Path) -> Path:
    """An adapter that is read."""
    return write_adapter(tmp_path / "adapter", drawn(FITTING), **Q_PROJ)


def test_no_pickle_is_loaded(fitting: Path) -> None:
    (fitting / WEIGHTS).rename(fitting / "adapter_model.bin")
    assert "holds adapter_model.bin, and nothing pickled is loaded" in refusal(fitting)
    (fitting / "adapter_model.bin").unlink()
    assert f"{WEIGHTS}: is not there" in refusal(fitting)


@pytest.mark.parametrize("name", ["adapter_config.json", WEIGHTS])
def test_no_link_leads_out_of_the_folder(name: str, fitting: Path) -> None:
    (fitting / name).rename(fitting.parent / name)
    (fitting / name).symlink_to(fitting.parent / name)
    assert "links out of its folder" in refusal(fitting)


@pytest.mark.parametrize(
    ("text", "clue"),
    [
        ("[" * 100_000, "not JSON"),
        ('{"r":' * 5000 + "1" + "}" * 5000, "not JSON"),
        ('{"r": ' + "9" * 100_000 + "}", "not JSON"),
        ("[]", "holds no JSON object"),
        ("{", "not JSON"),
        ('{"peft_type": "LORA", "r": "\\ud800"}', "not JSON"),
    ],
)
def test_hostile_json_is_refused(text: str, clue: str, fitting: Path) -> None:
    (fitting / "adapter_config.json").write_text(text)
    assert clue in refusal(fitting)


@pytest.mark.parametrize("cut", [0, 4, 100, -1])
def test_a_broken_file_is_refused(cut: int, fitting: Path) -> None:
    content = (fitting / WEIGHTS).read_bytes()
    (fitting / WEIGHTS).write_bytes(content[:cut])
    assert "broken safetensors file" in refusal(fitting)


def test_other_dtypes_are_refused(fitting: Path) -> None:
    held = load_file(fitting / WEIGHTS)
    name = min(held)
    save_file({**held, name: held[name].astype(np.int8)}, fitting / WEIGHTS)
    assert "is I8; known are" in refusal(fitting)


BOMBS = [
    "(.*)*!",
    "(a|a|.)*!",
    "((.*)*)*!",
    "(.?){999}" * 20,
    "((((.?){99}){99}){99}){99}",
    "(" * 1000 + "." + ")*" * 1000,
    ".*" * 1000 + "!",
    "(?i)[\\U00000000-\\U0010ffff]" * 60,
    "x{" + "9" * 1000 + "}",
]


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb[:20])
@pytest.mark.parametrize("key", ["target_modules", "exclude_modules", "layers_pattern", "patterns"])
def test_no_pattern_takes_long(key: str, bomb: str, tmp_path: Path) -> None:
    big = replace(TIED, num_hidden_layers=128)
    shapes = {
        k: s for n in range(128) for k, s in pair(f"model.layers.{n}.self_attn.q_proj").items()
    }
    said: dict[str, Any] = {key: bomb}
    if key == "patterns":
        said = {
            name: {bomb[: 200 - len(str(n))] + str(n): 2 for n in range(500)}
            for name in ("rank_pattern", "alpha_pattern")
        }
    elif key == "layers_pattern":
        said["layers_to_transform"] = [1]
    folder = write_adapter(tmp_path / "adapter", drawn(shapes), **{**Q_PROJ, **said})
    began = time.process_time()
    try:
        read_adapter(folder, big)
    except Refusal as problem:
        assert "\n" not in str(problem)
    assert time.process_time() - began < 5


NAMES_OF_MODULES = [
    *(f"model.layers.{n}.{m}" for n in (0, 1, 12) for m in ("self_attn.q_proj", "mlp.up_proj")),
    EMBEDDING,
    HEAD,
]
PIECES = st.sampled_from([
    *("q", "_proj", "proj", "model", "layers", "mlp", "up", "1", "2", "head", "lm_"),
    *(".", r"\.", "*", "+", "?", "*?", "|", "(", ")", "(?:", "[", "]", "^", "$", "-", "[^", r"\d"),
    *(r"\w", r"\W", r"\b", r"\s", r"\Z", r"\A", "{1,2}", "{,2}", "{2}", "(?i)", "(?P<n>", r"\1"),
    *("(?=", "(?i:", "[:alpha:]", "&&", "--", r"\x71", r"\141", "Q", "&", "~", "]]", "\n", r"\Q"),
])  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.lists(PIECES, max_size=7).map("".join))
def test_a_pattern_that_is_read_means_what_it_means_to_python(pattern: str) -> None:
    try:
        found = matching("target_modules", pattern, NAMES_OF_MODULES)
    except Refusal:
        return
    assert found == {name for name in NAMES_OF_MODULES if re.fullmatch(pattern, name)}


KEYS = [*PeftConfig.model_fields, "use_qalora", "layer_replication", "new", "fan_in_fan_out"]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 50),
    st.integers(),
    st.floats(),
    st.sampled_from(["q_proj", "all-linear", ".*", "layers", "LORA", "none", "pissa", EMBEDDING]),
    st.text(max_size=20),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["q_proj", "(", "embed_tokens", ".*"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
def test_any_settings_are_read_or_refused(said: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = write_adapter(Path(place) / "adapter", drawn(FITTING), **{**Q_PROJ, **said})
        try:
            adapter = read_adapter(folder, TIED)
        except Refusal as problem:
            assert "\n" not in str(problem)
            assert len(str(problem)) < 600
        else:
            assert all(math.isfinite(lora.scale) for lora in adapter.loras.values())
