"""What a chat template renders: what Transformers does, on a day that stands still."""

from __future__ import annotations

import contextlib
import time
from datetime import date

import pytest
from fuzz_templates import STATEMENTS
from hypothesis import given, settings
from jinja2.sandbox import ImmutableSandboxedEnvironment
from templates import CASES, TOKENS, TURNS, Case, said, transformers_renders

from jaxorg.errors import Refusal
from jaxorg.llama.chat_template import LONGEST, TODAY, ChatTemplate, dated

HI = said("hi")


def _render(text: str) -> str:
    return ChatTemplate(text, TOKENS, "test").render(HI, True)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_template_renders_what_transformers_does(case: Case) -> None:
    template = ChatTemplate(case.template, TOKENS, "test", case.options)
    assert template.render(case.messages, case.prompt) == case.expected


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_transformers_renders_what_is_written_here(case: Case) -> None:
    pytest.importorskip("transformers", reason="needs the parity extra")
    found = transformers_renders(case.template)(case.messages, case.options, case.prompt)
    assert found == case.expected


@settings(max_examples=300, deadline=None)
@given(STATEMENTS)
def test_what_both_render_is_the_same(text: str) -> None:
    pytest.importorskip("transformers", reason="needs the parity extra")
    try:
        found = ChatTemplate(text, TOKENS, "test").render(TURNS, True)
        expected = transformers_renders(text)(TURNS, {}, True)
    except Exception:  # a refusal here, or anything there
        return
    assert found == expected or " object at 0x" in expected


def test_options_reach_the_template_and_win_over_special_tokens() -> None:
    text = "{{ bos_token }}{{ eos_token }}{{ enable_thinking is defined and enable_thinking }}"
    chosen = ChatTemplate(text, TOKENS, "test", {"enable_thinking": True, "eos_token": "<e>"})
    assert _render(text) == "<s></s>False"
    assert chosen.render(HI, True) == "<s><e>True"


def test_an_option_cannot_stand_for_the_conversation() -> None:
    with pytest.raises(Refusal, match="base.template_options: messages is no option; remove it"):
        ChatTemplate("", {}, "test", {"messages": []})


def test_tools_and_documents_are_none_until_they_are_options() -> None:
    text = "{{ tools is none }}{{ documents is none }}"
    assert _render(text) == "TrueTrue"
    assert ChatTemplate(text, {}, "test", {"tools": []}).render(HI, True) == "FalseTrue"


DATED = [
    "{{ strftime_now('%d %b %Y') }}",
    "\n  {% if strftime_now is defined %}\n  {{ strftime_now('%A, %B %-d, %Y') }}{% endif %}\n",
    "{% macro say(how) %}{{ strftime_now(how) }}{% endmacro %}{{ say('%y-%m-%-m %H:%M') }}",
    "{% set now = strftime_now %}{{- now('%F') -}}  x",
]


@pytest.mark.parametrize("text", DATED)
def test_an_exported_template_says_the_date_of_the_training(text: str) -> None:
    def elsewhere(text: str) -> str:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["strftime_now"] = date(2031, 1, 2).strftime
        return environment.from_string(text).render()

    expected = _render(text)
    assert elsewhere(text) != expected
    assert elsewhere(dated(text)) == expected
    assert _render(dated(text)) == expected
    assert dated(dated(text)) == dated(text)


def test_a_template_without_a_date_is_exported_as_it_is() -> None:
    text = "{% set date_string = '26 Jul 2024' %}{{ date_string }}"
    assert dated(text) == text


def test_today_is_the_day_that_llama_3_falls_back_on() -> None:
    assert date(2024, 7, 26) == TODAY
    assert _render("{{ strftime_now('%d %b %Y') }}") == "26 Jul 2024"


@pytest.mark.parametrize("directive", ["%", "%%", "%9999999d", "%x", "%s", "%Q", "%-", "%\n"])
def test_a_date_that_depends_on_more_than_the_day_is_refused(directive: str) -> None:
    with pytest.raises(Refusal, match="strftime_now knows no '%"):
        _render("{{ strftime_now(bos_token ~ " + repr(directive) + ") }}")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{{ 'x' | urlize }}", "No filter named 'urlize'"),
        ("{{ [[1], [2]] | sum(start=[]) }}", "No filter named 'sum'"),
        ("{{ [1, 2] | random }}", "No filter named 'random'"),
        ("{{ messages | map('pprint') | list }}", "No filter named 'pprint'"),
        ("{{ 'x'.ljust(9) }}", "may not use 'ljust' of a str"),
        ("{{ (1).to_bytes(9, 'big') }}", "may not use 'to_bytes' of a int"),
        ("{{ 'x'.format_map({}) }}", "may not use 'format_map' of a str"),
        ("{{ messages[0]['popitem'] }}", "may not use 'popitem' of a dict"),
        ("{{ raise_exception.__name__ }}", "may not use '__name__' of a function"),
        ("{% macro f() %}{% endmacro %}{{ f.name }}", "may not use 'name' of a Macro"),
        ("{{ lipsum() }}", "'lipsum' is undefined"),
        ("{{ 1 | jaxorg.each(-10**9) }}", "No filter named 'jaxorg.each'"),
        ("{% for a in [1] recursive %}{{ loop([2]) }}{% endfor %}", "may not be recursive"),
        ("{% include 'x' %}", "may not be in parts"),
        ("{% from 'x' import y %}", "may not be in parts"),
        ("{% block a %}{{ self.a() }}{% endblock %}", "may not be in parts"),
    ],
)
def test_what_published_templates_do_not_use_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(Refusal, match=named):
        _render(text)


def test_a_template_does_not_change_the_messages() -> None:
    messages = said("hi", "ho")
    with pytest.raises(Refusal, match="it indents what is no text"):
        ChatTemplate("{{ messages | indent }}", {}, "test").render(messages, True)
    assert messages == said("hi", "ho")


def test_what_a_template_says_of_itself_is_cut() -> None:
    with pytest.raises(Refusal) as caught:
        _render("{{ raise_exception('x\n' * 100000) }}")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


# Each is as bad as it may be at the greatest length: many nodes, much nesting, long chains.
LONG = [
    "{% macro f() %}" * 90 + "{{a}}" * 11000 + "{% endmacro %}" * 90,
    "{{ a" + "<a" * (LONGEST // 2 - 4) + " }}",
    "{{ " + "not " * (LONGEST // 4 - 4) + "a }}",
    "{{ " + "(" * (LONGEST - 4),
]


@pytest.mark.parametrize("text", LONG, ids=lambda text: text[:20])
def test_a_template_of_any_shape_compiles_in_seconds(text: str) -> None:
    start = time.process_time()
    with contextlib.suppress(Refusal):
        ChatTemplate(text, {}, "test")
    assert time.process_time() - start < 8
