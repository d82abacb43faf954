"""Exported tokenizers: with them Transformers reads as jaxorg did, whatever their class was."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from jaxorg.llama.chat_template import ChatTemplate
from jaxorg.llama.exported_tokenizer import dated, with_defaults, write_tokenizer
from jaxorg.llama.tokenizer import Tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
TURN = [{"role": "user", "content": "add 3 and 4"}]
TEXTS = ("add 3 and 4", " add  3", "<s>add</s>add", "x<|box|> y", "\n\nadd , 4 's", "Ä日", "")
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
PIECES = ["▁", "a", "d", "▁a", "dd", "▁add", "add", "3", "4", ",", "n", "an", "and", "▁and"]


def sentencepiece_like() -> tokenizers.Tokenizer:
    """As Llama 2's: a space before each text, spaces as letters, bytes for what is unknown."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]
    merges = [("▁", "a"), ("d", "d"), ("▁a", "dd"), ("a", "dd"), ("a", "n"), ("an", "d")]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    backend.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 1)])
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.add_tokens([AddedToken("<|box|>", rstrip=True, normalized=False)])
    return backend


def byte_level(prefix_space: bool) -> tokenizers.Tokenizer:
    """As GPT-2's, with or without a space before each text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<unk>", "<s>", "</s>", "Ġa", "dd", "Ġadd", *alphabet]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    merges = [("Ġ", "a"), ("d", "d"), ("Ġa", "dd")]
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return backend


LLAMA2 = {
    "tokenizer_class": "LlamaTokenizer",
    "legacy": False,
    "add_bos_token": True,
    "add_eos_token": True,
    "add_prefix_space": False,
    "sp_model_kwargs": {},
    "clean_up_tokenization_spaces": True,
    "model_max_length": 4096,
    "padding_side": "left",
    "auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]},
    "added_tokens_decoder": {"7": {"content": "add", "special": True}},
    "additional_special_tokens": ["3", "not there"],
}
FOLDERS: Mapping[str, tuple[tokenizers.Tokenizer, Mapping[str, Any]]] = {
    "llama 2": (sentencepiece_like(), LLAMA2),
    "a class of its own": (sentencepiece_like(), {"tokenizer_class": "OursTokenizer"}),
    "gpt 2": (byte_level(False), {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}),
    "prefix space": (byte_level(True), {"tokenizer_class": "PreTrainedTokenizerFast"}),
    "qwen 2": (byte_level(False), {"tokenizer_class": "Qwen2Tokenizer"}),
}


def exported(
    name: str, tmp_path: Path, options: Mapping[str, Any] | None = None, template: str = TEMPLATE
) -> tuple[Path, Tokenizer]:
    """A tokenizer's folder as it is exported, and the tokenizer as jaxorg read it."""
    origin, folder = tmp_path / "origin", tmp_path / "exported"
    for each in (origin, folder):
        each.mkdir()
    backend, settings = FOLDERS[name]
    backend.enable_truncation(3)
    backend.enable_padding(length=9)
    backend.save(str(origin / "tokenizer.json"))
    given = {**settings, **SPECIAL, "chat_template": template}
    (origin / "tokenizer_config.json").write_text(json.dumps(given))
    tokenizer = Tokenizer.load(origin)
    write_tokenizer(folder, origin, tokenizer.template, options or {})
    return folder, tokenizer


def read(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / name).read_text())
    return content


def test_nothing_beside_the_tokenizers_file_changes_how_it_reads(tmp_path: Path) -> None:
    folder, _ = exported("llama 2", tmp_path)
    settings = read(folder, "tokenizer_config.json")
    added = {int(number): token for number, token in settings.pop("added_tokens_decoder").items()}
    assert settings == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 4096,
        "padding_side": "left",
        **SPECIAL,
    }
    written, given = (read(f, "tokenizer.json") for f in (folder, tmp_path / "origin"))
    assert [{"id": number, **token} for number, token in added.items()] == given["added_tokens"]
    assert given["truncation"]
    assert given["padding"]
    assert written == given | {"truncation": None, "padding": None}
    assert (folder / "chat_template.jinja").read_text() == TEMPLATE
    assert len(list(folder.iterdir())) == 3


def test_a_prefix_space_is_kept(tmp_path: Path) -> None:
    folder, _ = exported("prefix space", tmp_path)
    assert read(folder, "tokenizer_config.json")["add_prefix_space"] is True


def test_an_exported_tokenizer_is_read_as_the_one_it_was_made_of(tmp_path: Path) -> None:
    folder, tokenizer = exported("llama 2", tmp_path)
    again = Tokenizer.load(folder)
    for text in TEXTS:
        assert again.prompt_ids(text) == tokenizer.prompt_ids(text)
    assert again.end_ids == tokenizer.end_ids


@pytest.mark.filterwarnings("ignore")  # whatever torch and Transformers say while being imported
@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", None])
def test_transformers_reads_as_the_tokenizers_file_says(
    name: str, family: str | None, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    folder, tokenizer = exported(name, tmp_path)
    if family:  # Transformers picks a class by it, too
        (folder / "config.json").write_text(json.dumps({"model_type": family}))
    ours = tokenizers.Tokenizer.from_file(str(tmp_path / "origin" / "tokenizer.json"))
    ours.no_truncation()
    ours.no_padding()
    for load in (transformers.AutoTokenizer, transformers.PreTrainedTokenizerFast):
        theirs = load.from_pretrained(folder)
        for text in TEXTS:
            ids = ours.encode(text, add_special_tokens=False).ids
            assert theirs.encode(text, add_special_tokens=False) == ids, text
            assert theirs.encode(text) == ours.encode(text).ids, text
            assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids), text
        asked = theirs.apply_chat_template(TURN, add_generation_prompt=True, return_dict=True)
        assert list(asked) == ["input_ids", "attention_mask"]
        assert asked["input_ids"] == tokenizer.prompt_ids(TURN[0]["content"])


# Chat templates


def rendered(text: str, **variables: Any) -> str:
    """A template as Transformers renders it, with another date than ours."""
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["strftime_now"] = lambda form: "today"
    return environment.from_string(text).render(messages=TURN, **variables)


OPTIONS = {"enable_thinking": False, "depth": 3, "share": -0.5, "tone": 'dry "and" \\ 🦊 %} {{ x'}
SHOWS = (
    "  {% if enable_thinking %}thought{% else %}none{% endif %}\n {{ tone }}|{{ depth + share }}"
    "{% for m in messages %}{% macro f() %}{{ tone }}{% endmacro %}{{ f() }}{% endfor %}\n"
)


def test_variables_of_training_are_known_unless_others_are_given() -> None:
    text = with_defaults(SHOWS, OPTIONS)
    assert rendered(text) == rendered(SHOWS, **OPTIONS)
    other = {**OPTIONS, "enable_thinking": True}
    assert rendered(text, enable_thinking=True) == rendered(SHOWS, **other) != rendered(text)
    for start in (
        "",
        "\n",
        "\n\n x",
        "   {% if true %}\n y{% endif %}",
        "{%- if true %} {% endif %}",
    ):
        assert rendered(with_defaults(start, OPTIONS)) == rendered(start)


def test_a_template_says_the_date_of_its_training() -> None:
    says = "{%- if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}{% endif %}"
    text = f'\n{says} Today: {{{{ day }}}} {{{{ strftime_now("%B %-d") }}}}.\n'
    ours = ChatTemplate(text, {}, "test").render(TURN, add_generation_prompt=False)
    assert "26 Jul 2024" in ours
    assert "today" in rendered(text)
    assert rendered(dated(text)) == ours
    assert dated("no date") == "no date"


def test_what_a_sweep_told_the_template_is_exported(tmp_path: Path) -> None:
    thinks = "{% if enable_thinking is not defined or enable_thinking %}thinks{% endif %}"
    folder, _ = exported("llama 2", tmp_path, {"enable_thinking": False}, thinks + TEMPLATE)
    text = (folder / "chat_template.jinja").read_text()
    assert rendered(thinks + TEMPLATE, **SPECIAL).startswith("thinks")
    assert rendered(text, **SPECIAL) == rendered(TEMPLATE, **SPECIAL)


def test_a_named_token_that_is_no_token_stays_text(tmp_path: Path) -> None:
    backend = sentencepiece_like()
    origin, folder = tmp_path / "origin", tmp_path / "exported"
    for each in (origin, folder):
        each.mkdir()
    backend.save(str(origin / "tokenizer.json"))
    tokens = {**SPECIAL, "bos_token": "<begin>", "sep_token": "<never>", "image_token": "<|box|>"}
    given = {**tokens, "chat_template": "{{ image_token }}" + TEMPLATE}
    (origin / "tokenizer_config.json").write_text(json.dumps(given))
    tokenizer = Tokenizer.load(origin)
    write_tokenizer(folder, origin, tokenizer.template, {})
    settings = read(folder, "tokenizer_config.json")
    assert {name for name in settings if name.endswith("_token")} == {"eos_token", "unk_token"}
    text = (folder / "chat_template.jinja").read_text()
    assert rendered(text, **SPECIAL | {"bos_token": "<begin>"}) == rendered(text, eos_token="</s>")
    assert "sep_token" not in text
    assert Tokenizer.load(folder).prompt_ids("add") == tokenizer.prompt_ids("add")
