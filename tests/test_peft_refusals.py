"""Adapter folders that are not read: refused in one line, in bounded time, before any tensor is."""

import math
import re
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft_folders import (
    EMBEDDING,
    HEAD,
    QWEN,
    TIED,
    UNTIED,
    UP,
    WEIGHTS,
    Q,
    Shapes,
    drawn,
    pair,
    write_adapter,
)
from safetensors.numpy import load_file, save_file

from jaxorg.errors import Refusal
from jaxorg.llama.model import LlamaConfig
from jaxorg.llama.peft_adapter import read_adapter
from jaxorg.llama.peft_config import PeftConfig, matching

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


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_biases_that_were_trained_must_be_there(bias: str, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter", drawn(FITTING), **Q_PROJ, bias=bias)
    assert "q_proj.base_layer.bias' is missing" in refusal(folder, QWEN)
    assert read_adapter(folder, TIED).loras  # which has none


def test_dora_of_the_embedding_is_refused(tmp_path: Path) -> None:
    said = {"use_dora": True, "target_modules": ["embed_tokens"]}
    folder = write_adapter(tmp_path / "adapter", drawn(FITTING), **said)
    assert "use_dora is true for model.embed_tokens" in refusal(folder, UNTIED)


@pytest.mark.parametrize(
    "said", [{"modules_to_save": ["embed_tokens"]}, {"target_modules": ["embed_tokens"]}]
)
def test_tokens_of_a_table_that_is_changed_as_a_whole_are_refused(
    said: dict[str, Any], tmp_path: Path
) -> None:
    said = {**Q_PROJ, "trainable_token_indices": [1], **said}
    folder = write_adapter(tmp_path / "adapter", drawn(FITTING), **said)
    assert "trainable_token_indices stands beside all of" in refusal(folder, UNTIED)


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


@pytest.mark.parametrize(
    "pattern",
    ["l{,2}m_head", "[q[:alpha:]]m_head", "[[m]m_head", "(?<=l)m_head", "(?>lm)_head", "l\u00e9"],
)
def test_a_pattern_that_means_something_else_to_re2_is_refused(pattern: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as where jaxorg runs
        with pytest.raises(Refusal, match="target_modules has"):
            matching("target_modules", pattern, NAMES_OF_MODULES)


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
