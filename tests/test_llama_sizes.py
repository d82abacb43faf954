"""Shipped sweeps of size `llama`, planned without their weights.

In the place of each checkpoint stands one of its true shape, whose weights are a hole in a file.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_fit import taking

from jaxorg.data.toy_tokenizer import train_toy
from jaxorg.fit import fit
from jaxorg.llama.checkpoint import read_config
from jaxorg.llama.model import LlamaConfig
from jaxorg.llama.names import resolve_shape
from jaxorg.planning import chain
from jaxorg.sweep import sweep
from jaxorg.sweepfile import builtin

LLAMAS = ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.2-1B-Instruct")
SWEEPS = [name for name, path in builtin.sweeps().items() if "  llama:" in path.read_text()]
# Planning one takes most of a minute.
PLANNED = [pytest.param(name, marks=pytest.mark.long) for name in SWEEPS]


def tensors(config: LlamaConfig) -> Iterator[tuple[str, list[int]]]:
    """Names and shapes of a Llama's weights on the hub."""
    wide, heads = config.hidden_size, config.num_attention_heads * config.head_dim
    shared, inner = config.num_key_value_heads * config.head_dim, config.intermediate_size
    yield "model.embed_tokens.weight", [config.vocab_size, wide]
    yield "model.norm.weight", [wide]
    if not config.tie_word_embeddings:
        yield "lm_head.weight", [config.vocab_size, wide]
    for layer in (f"model.layers.{i}" for i in range(config.num_hidden_layers)):
        for norm in ("input", "post_attention"):
            yield f"{layer}.{norm}_layernorm.weight", [wide]
        for part, out in (("q", heads), ("k", shared), ("v", shared)):
            yield f"{layer}.self_attn.{part}_proj.weight", [out, wide]
        yield f"{layer}.self_attn.o_proj.weight", [wide, heads]
        for part in ("gate", "up"):
            yield f"{layer}.mlp.{part}_proj.weight", [inner, wide]
        yield f"{layer}.mlp.down_proj.weight", [wide, inner]


def write_hollow(folder: Path, model: str) -> Path:
    """A checkpoint of a model's shape with the toy tokenizer, which takes no room on disk."""
    train_toy(folder, 768)
    shutil.copy(resolve_shape(model) / "config.json", folder)
    header, end = {}, 0
    for name, shape in tensors(read_config(folder)):
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Hollow checkpoints by the hub's names for the models."""
    folder = tmp_path_factory.mktemp("hub")
    return {model: write_hollow(folder / model, model) for model in LLAMAS}


@pytest.fixture
def downloaded(hub: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The models seem to be in the hub's cache."""
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo, **_: str(hub[repo]))
    monkeypatch.setattr(chain, "_model_digest", lambda folder, _: folder.name)  # 16 GB of nothing


@pytest.mark.parametrize("name", PLANNED)
def test_a_sweep_of_size_llama_passes_a_dry_run(
    name: str, downloaded: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(name, "llama", out=tmp_path / "out", dry_run=True) == 0
    told = capsys.readouterr().out
    assert re.search(r"training programs to compile\n(.*\n){1,2}.*about [\d,]+ days on", told)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_of_size_llama_can_be_fitted(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(name=name))
    tried = taking(monkeypatch, gigabytes=80)
    assert fit(name, "v4-64", as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["fits"] is True
    assert tried
