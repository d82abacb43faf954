"""Adapters that others trained: weights are those that PEFT merges."""

import math
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from peft_folders import (
    BIASED,
    EMBEDDING,
    HEAD,
    NORM,
    QWEN,
    TIED,
    TOKENS,
    UNTIED,
    UP,
    WEIGHTS,
    Q,
    Shapes,
    Tensors,
    drawn,
    pair,
    write_adapter,
    write_base,
)
from safetensors.numpy import load_file, save_file
from weights import held, load, random_weights
from weights import merged as merged_in_memory

from jaxorg.engine.params import abstract_model
from jaxorg.llama import checkpoint
from jaxorg.llama.lora import LoraConfig
from jaxorg.llama.model import LlamaConfig
from jaxorg.llama.peft_adapter import read_adapter
from jaxorg.llama.peft_merged import merged
from jaxorg.planning.signature import ModelSignature
from jaxorg.storage.weight_reader import Bounds, Names, everything, whole

needs_peft = pytest.mark.skipif(not find_spec("peft"), reason="needs peft")
live = pytest.mark.filterwarnings("ignore")  # whatever torch, Transformers and PEFT say


def shapes_of(config: LlamaConfig) -> Any:
    return abstract_model(ModelSignature(config))[1].trainable


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


def low_rank(held: Tensors, module: str = Q) -> np.ndarray:
    """B A."""
    change: np.ndarray = held[f"{module}.lora_B.weight"] @ held[f"{module}.lora_A.weight"]
    return change


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


def test_what_we_export_is_read_back(tmp_path: Path) -> None:
    static = ModelSignature(TIED, lora=LoraConfig(rank=2))
    adapters, full = random_weights(static)
    folder = write_adapter(tmp_path / "adapter", {}, target_modules="all-linear")
    checkpoint.write_adapters(folder, adapters)
    read = merged(held(full), read_adapter(folder, TIED))
    jax.tree.map(assert_close, everything(read, full), merged_in_memory(full, adapters, 3.0))


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
