"""Chat templates in the style of published ones, and what Transformers makes of them.

`python tests/templates.py FOLDER` renders every template below FOLDER (`*.jinja`, and those in
`tokenizer_config.json`) by jaxorg and by Transformers, and prints where they differ. The exit code
is 1 if any text does. Needs the extra `parity`.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxorg.errors import Refusal
from jaxorg.llama.chat_template import TODAY, ChatTemplate

TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

Messages = Sequence[Mapping[str, str]]


def said(*texts: str, system: str | None = None) -> list[dict[str, str]]:
    """A conversation: an optional system turn, then user and assistant by turns."""
    roles = itertools.cycle(("user", "assistant"))
    turns = [{"role": role, "content": text} for text, role in zip(texts, roles, strict=False)]
    return turns if system is None else [{"role": "system", "content": system}, *turns]


CONVERSATIONS = [
    said("hi"),
    said(' <b> é "q" \n'),
    said("q", "answer é"),
    said("q", system="Be good."),
    said("q", "x", "it's", " y\n", system=" Be good. "),
    said("q", "<think>\nhm\n</think>\n\nok", "again"),
    said("", ""),
    said("a" * 50 + "ÄÖ😀", "[INST] b [/INST]"),
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"enable_thinking": False},
    {"enable_thinking": True},
    {"date_string": "01 Jan 2020", "tools": []},
]

TURNS = said(" one ", "two", "thr<e", system="Be good.")


@dataclass(frozen=True)
class Case:
    """A template, and what Transformers 5.24 renders."""

    template: str
    expected: str
    options: Mapping[str, Any] = field(default_factory=dict)
    messages: Messages = field(default_factory=lambda: TURNS)
    prompt: bool = False


CASES: dict[str, Case] = {
    "header": Case(
        "{% set loop_messages = messages %}{% for message in loop_messages %}"
        "{% set content = '<|start|>' + message['role'] + '<|end|>\\n\\n' "
        "+ message['content'] | trim + '<|eot|>' %}"
        "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
        "{{ content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\\n\\n' }}{% endif %}",
        "<s><|start|>system<|end|>\n\nBe good.<|eot|><|start|>user<|end|>\n\none<|eot|>"
        "<|start|>assistant<|end|>\n\ntwo<|eot|><|start|>user<|end|>\n\nthr<e<|eot|>"
        "<|start|>assistant<|end|>\n\n",
        prompt=True,
    ),
    "system first": Case(
        "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
        "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
        "{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}"
        "{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate') }}{% endif %}"
        "{% if m['role'] == 'user' %}"
        "{{ bos_token + '[INST] ' + (system if loop.first else '') + m['content'].strip() "
        "+ ' [/INST]' }}"
        "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
        "<s>[INST] <<SYS>>\nBe good.\n<</SYS>>\n\none [/INST] two </s><s>[INST] thr<e [/INST]",
    ),
    "blocks on lines of their own": Case(
        "{%- for message in messages %}\n"
        "    {%- if message.role == 'system' %}\n"
        "S: {{ message.content }}\n"
        "    {% else %}\n"
        "  {{- message.role | upper }}: {{ message.content -}}\n"
        "    {% endif %}\n"
        "\n"
        "{% endfor %}\n"
        "  {# a comment #}\n"
        "end\n",
        "S: Be good.\n\nUSER:  one \nASSISTANT: two\nUSER: thr<e\nend",
    ),
    "generation": Case(
        "{%- for message in messages %}{%- if message.role == 'assistant' %}"
        "{{- '<a>' }}{% generation %}{{- message.content + eos_token }}"
        "{%- set inside = 1 %}{% endgeneration %}\n"
        "{{- inside is defined }}{%- else %}{{- '<u>' + message.content }}{%- endif %}"
        "{%- endfor %}",
        "<u>Be good.<u> one <a>two</s>False<u>thr<e",
    ),
    "thinking": Case(
        "{%- for m in messages %}{%- if m.role == 'assistant' and '</think>' in m.content %}"
        "{%- set text = m.content.split('</think>')[-1].lstrip('\\n') %}"
        "{%- else %}{%- set text = m.content %}{%- endif %}{{- m.role + ':' + text + ';' }}"
        "{%- endfor %}{%- if add_generation_prompt %}{{- 'assistant:' }}"
        "{%- if enable_thinking is defined and enable_thinking is false %}"
        "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}",
        "user:q;assistant:ok;user:again;assistant:<think>\n\n</think>\n\n",
        options={"enable_thinking": False},
        messages=CONVERSATIONS[5],
        prompt=True,
    ),
    "date": Case(
        "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
        '{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}'
        '{%- set date_string = "nothing" %}{%- endif %}{%- endif %}'
        "{{ date_string }}{{ strftime_now('|%A, %B %-d, %Y|%Y-%m-%d') }}",
        "26 Jul 2024|Friday, July 26, 2024|2024-07-26",
    ),
    "date as an option": Case(
        "{% if date_string is not defined %}{% set date_string = strftime_now('%F') %}{% endif %}"
        "{{ date_string }}",
        "1 May 2025",
        options={"date_string": "1 May 2025"},
    ),
    "tools that are none": Case(
        "{% if tools is not none and tools | length > 0 %}tools{% elif documents %}documents"
        "{% else %}{{ tools }}{% endif %}{{ xml_tools is defined }}",
        "NoneFalse",
    ),
    "tools": Case(
        "{% for tool in tools %}{{ tool | tojson }}\n{{ tool | tojson(indent=2) }}"
        "{{ tool | tojson(ensure_ascii=True, sort_keys=true, separators=(',', ':')) }}"
        "{% for name, value in tool.items() %}{{ name }}={{ value }},{% endfor %}"
        "{% for name, value in tool | dictsort %}{{ name }};{% endfor %}"
        "{{ tool.get('none', 'no') }}{% endfor %}",
        '{"name": "é<b>\'", "deep": {"a": [1, 2.5, true, null]}, "b": []}\n{\n'
        '  "name": "é<b>\'",\n  "deep": {\n    "a": [\n      1,\n      2.5,\n      true,\n'
        '      null\n    ]\n  },\n  "b": []\n}{"b":[],"deep":{"a":[1,2.5,true,null]},'
        "\"name\":\"\\u00e9<b>'\"}name=é<b>',deep={'a': [1, 2.5, True, None]},b=[],b;deep;"
        "name;no",
        options={"tools": [{"name": "é<b>'", "deep": {"a": [1, 2.5, True, None]}, "b": []}]},
    ),
    "namespace": Case(
        "{%- set ns = namespace(found=false, last=-1) %}"
        "{%- for m in messages[::-1] %}{%- if not ns.found and m.role == 'assistant' %}"
        "{%- set ns.found = true %}{%- set ns.last = messages | length - 1 - loop.index0 %}"
        "{%- endif %}{%- endfor %}{{ ns.found }} {{ ns.last }} {{ messages[ns.last].content }}",
        "True 2 two",
    ),
    "macro": Case(
        "{% macro turn(role, text='none', mark=eos_token) -%}"
        "<{{ role }}>{{ text }}{{ mark }}{{ caller() if caller }}"
        "{%- endmacro %}"
        "{% for m in messages %}{{ turn(m.role, m.content) }}{% endfor %}{{ turn('x', mark='') }}"
        "{% call turn('y') %}!{% endcall %}",
        "<system>Be good.</s><user> one </s><assistant>two</s><user>thr<e</s><x>none<y>none</s>!",
    ),
    "break and continue": Case(
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
        "{{ m.content }}{% if loop.index > 2 %}{% break %}{% endif %}{% endfor %}",
        " one two",
    ),
    "selections": Case(
        "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') "
        "| map('trim') | join('|') }}{{ messages | rejectattr('role', 'in', ['user']) | list "
        "| length }}{{ (messages | last).content ~ (messages | first).role }}"
        "{{ [3, 1, 2] | sort | reverse | list }}{{ ['b', 'a', 'b'] | unique | join }}",
        "one|thr<e2thr<esystem[3, 2, 1]ba",
    ),
    "types": Case(
        "{% for m in messages %}{{ m is mapping }}{{ m.content is string }}{{ m is iterable }}"
        "{{ m.tool_calls is defined }}{{ m.tool_calls }}{{ m['x'] is none }}{% endfor %}"
        "{{ messages is sequence }}{{ true }}{{ none }}{{ 1.0 }}{{ 7 // 2 }}{{ -7 % 3 }}"
        "{{ [1, 'a', none, true, 1e20] }}{{ {'a': (1, '\"')} }}{{ 'a' ~ none ~ 1.5 }}",
        "TrueTrueTrueFalseFalseTrueTrueTrueFalseFalseTrueTrueTrueFalseFalse"
        "TrueTrueTrueFalseFalseTrueTrueNone1.032[1, 'a', None, True, 1e+20]"
        "{'a': (1, '\"')}aNone1.5",
    ),
    "texts": Case(
        "{{ 'a-b-c'.split('-', 1) }}{{ ' ab '.lstrip() }}{{ 'xxa'.lstrip('x') }}"
        "{{ 'abc'.rstrip('c') }}{{ 'abc'.startswith(('x', 'a')) }}{{ 'abc'.endswith('c') }}"
        "{{ 'aXa'.replace('a', 'b', 1) }}{{ 'aXa' | replace('a', '') }}{{ 'it\\'s A' | title }}"
        "{{ 'hELLO' | capitalize }}{{ 'ABC'.lower() }}{{ 'abc'[-1] }}{{ 'abc'[::-1] }}"
        "{{ '%s-%03d' % ('a', 7) }}{{ '<{}>'.format('b') }}{{ 'a\\nb' | indent(2) }}"
        "{{ 'a,b'.partition(',') }}{{ 'q\\n' | trim('\\n') }}{{ '3' | int + 1 }}",
        "['a', 'b-c']ab aabTrueTruebXaXIt's AHelloabcccbaa-007<b>a\n  b('a', ',', 'b')q4",
    ),
    "scopes": Case(
        "{% set x = 1 %}{% for m in messages %}{% set x = 2 %}{% endfor %}{{ x }}"
        "{% set y %}a{{ x }}b{% endset %}{{ y }}{% filter upper %}c{% endfilter %}"
        "{% with z = 3 %}{{ z }}{% endwith %}{{ z }}{% raw %}{{ z }}{% endraw %}",
        "1a1bC3{{ z }}",
    ),
    "line ends": Case(
        "a\r\nb{% if true %}\r\n  c\r\n{% endif %}\rd\n\n",
        "a\nb  c\nd\n",
    ),
}


def transformers_renders(text: str) -> Callable[[Messages, Mapping[str, Any], bool], str]:
    """What Transformers makes of a template, on the day that is jaxorg's."""
    from transformers.utils import chat_template_utils

    template = chat_template_utils._compile_jinja_template(text)
    template.environment.globals["strftime_now"] = TODAY.strftime

    def render(messages: Messages, options: Mapping[str, Any], prompt: bool) -> str:
        known = {"tools": None, "documents": None, **TOKENS, **options}
        return template.render(messages=messages, add_generation_prompt=prompt, **known)

    return render


def _found(folder: Path) -> Iterator[tuple[str, str]]:
    """Names and texts of the templates below a folder."""
    for file in sorted(folder.rglob("*.jinja")):
        yield str(file), file.read_text(encoding="utf-8")
    for file in sorted(folder.rglob("tokenizer_config.json")):
        own = json.loads(file.read_text(encoding="utf-8")).get("chat_template")
        for entry in own if isinstance(own, list) else [{"name": "", "template": own}]:
            if isinstance(entry["template"], str):
                yield f"{file} {entry['name']}", entry["template"]


def _differences(text: str) -> Iterator[tuple[str, str]]:
    """For each conversation, what jaxorg and Transformers say, or why they do not."""
    try:
        theirs = transformers_renders(text)
    except Exception:
        return  # no template
    for messages, options, prompt in itertools.product(CONVERSATIONS, OPTIONS, (False, True)):
        try:
            expected = theirs(messages, options, prompt)
        except Exception:
            continue
        try:
            found = ChatTemplate(text, TOKENS, "template", options).render(messages, prompt)
        except Refusal as refusal:
            found = str(refusal)
        yield found, expected


def main() -> int:
    """Prints a line for each template that differs, and a count of all."""
    templates, texts, wrong = 0, 0, 0
    for name, text in _found(Path(sys.argv[1])):
        pairs = list(_differences(text))
        templates, texts = templates + 1, texts + len(pairs)
        differing = [pair for pair in pairs if pair[0] != pair[1]]
        wrong += len(differing)
        if differing:
            print(f"{name}: {len(differing)} of {len(pairs)} differ: {differing[0]}")
    print(f"{templates} templates, {texts} texts, {wrong} differ")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
