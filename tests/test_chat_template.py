"""What a chat template renders, and that it renders as Transformers does."""

import pytest

from jaxorg.llama.chat_template import ChatTemplate
from jaxorg.runtime import Refusal

HI = [{"role": "user", "content": "hi"}]


def test_options_reach_the_template_and_win_over_special_tokens() -> None:
    text = "{{ bos_token }}{{ eos_token }}{{ enable_thinking is defined and enable_thinking }}"
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    plain = ChatTemplate(text, tokens, "test")
    chosen = ChatTemplate(text, tokens, "test", {"enable_thinking": True, "eos_token": "<e>"})
    assert plain.render(HI, True) == "<s></s>False"
    assert chosen.render(HI, True) == "<s><e>True"


def test_an_option_cannot_stand_for_the_conversation() -> None:
    with pytest.raises(Refusal, match="template_options: messages is set by jaxorg; remove it"):
        ChatTemplate("", {}, "test", {"messages": []})


def test_tools_and_documents_are_none_until_they_are_options() -> None:
    text = "{{ tools is none }}{{ documents is none }}"
    assert ChatTemplate(text, {}, "test").render(HI, True) == "TrueTrue"
    assert ChatTemplate(text, {}, "test", {"tools": []}).render(HI, True) == "FalseTrue"
