"""Pre-training a base model by the project's own command."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from speech import answer_ids

from jaxorg.errors import Refusal
from jaxorg.llama import checkpoint, names
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.pretrain import pretrain
from jaxorg.sweep import sweep

QUICK = ["base.scratch.steps=3", "base.scratch.examples=100", "base.scratch.batch=4"]
SHIPPED = checkpoint.resolve("jaxorg-1m")


@pytest.mark.long
def test_pretraining_makes_a_folder_that_a_sweep_can_start_from(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    pretrain(folder, size="smoke", mesh="cpu-1", set_=QUICK)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (SHIPPED / name).read_bytes()
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.decode(answer_ids(tokenizer, "fox owl")) == "fox owl"
    assert "Held-out exact match" in (folder / "README.md").read_text()
    assert precisions(folder) == {np.dtype(np.float16)}
    sweep("quickstart", size="smoke", set_=[f"base.model={folder}"], mesh="cpu-2", dry_run=True)


@pytest.mark.parametrize(
    "change",
    ["seeds=2", "base.scratch=null", "base.scratch.examples=100000000", "base.scratch.steps=0"],
)
def test_what_pretraining_cannot_do_is_refused_before_it_writes(
    tmp_path: Path, change: str
) -> None:
    with pytest.raises(Refusal):
        pretrain(tmp_path / "base", size="smoke", mesh="cpu-1", set_=[change])
    assert not (tmp_path / "base").exists()


BUILTIN = sorted(folder.name for folder in names.MODELS.iterdir())


@pytest.mark.parametrize("name", BUILTIN)
def test_a_shipped_model_is_capable(name: str) -> None:
    """By its card, which pre-training wrote from its own measurements; one is there to be weak."""
    card = (names.MODELS / name / "README.md").read_text()
    found = card.split("Held-out exact match, greedy: **")[1].split(" %**")[0]
    right = float(found.rpartition(" ")[2])
    assert 50 < right < 70 if name == "jaxorg-74k" else right >= 85
    assert precisions(names.MODELS / name) == {np.dtype(np.float16)}


def precisions(folder: Path) -> set[np.dtype]:
    return {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()}


def test_bases_of_one_size_differ_by_their_seed_alone() -> None:
    for name in BUILTIN:
        first, *others = names.replicates(name)
        for other in others:
            for given in ("config.json", "tokenizer.json", "tokenizer_config.json"):
                same = [(names.MODELS / each / given).read_bytes() for each in (first, other)]
                assert same[0] == same[1]
            files = [names.MODELS / each / "model.safetensors" for each in (first, other)]
            assert files[0].read_bytes() != files[1].read_bytes()


def test_the_shipped_models_are_small() -> None:
    size = sum(path.stat().st_size for path in names.MODELS.rglob("*") if path.is_file())
    assert size < 12_000_000


def test_the_shape_of_the_larger_one() -> None:
    shape = json.loads((SHIPPED / "config.json").read_text())
    assert (shape["num_hidden_layers"], shape["hidden_size"]) == (4, 128)
    assert (shape["num_attention_heads"], shape["num_key_value_heads"]) == (4, 2)
    assert shape["tie_word_embeddings"]
