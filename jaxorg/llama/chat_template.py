"""Chat templates: foreign Jinja code that writes a conversation as one text.

They render as in Transformers, with two exceptions: today is always `TODAY`, and what
`template_sandbox.py` does not allow is refused.

Not covered: a template that uses up its whole budget, a tenth of a second, for each of thousands of
prompts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from types import MappingProxyType
from typing import Any

import jinja2

from jaxorg.errors import Refusal
from jaxorg.llama.template_sandbox import Sandbox

# Some templates write today's date into the system prompt. The same run must give the same tokens
# tomorrow, so today is always the date that Llama 3's templates fall back on.
TODAY = date(2024, 7, 26)

LONGEST = 2**16  # characters of a template, which take up to two seconds to compile
_BUDGET = 500_000  # a rendering
_BUDGET_A_CHARACTER = 100  # of the messages, which a template may copy many times
_LONGEST_PROBLEM = 200  # characters, as a template may say what is wrong itself
_OWN = frozenset(("messages", "add_generation_prompt"))  # variables that are no options

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


class ChatTemplate:
    """A Hugging Face chat template, compiled; `source` says in messages where it comes from."""

    def __init__(
        self,
        text: str,
        special_tokens: Mapping[str, str],
        source: str,
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Compile a template.

        Args:
            text: the template, in Jinja.
            special_tokens: their texts by names such as `bos_token`, which the template may use.
            source: where it comes from, for messages.
            options: variables that the template knows besides, such as `enable_thinking`.

        Raises:
            Refusal: the template does not compile, or an option's name is taken.
        """
        self.text, self.special_tokens = text, dict(special_tokens)  # as they were given
        self._source = source
        if taken := sorted(_OWN.intersection(options)):
            raise Refusal(f"base.template_options: {taken[0]} is no option; remove it")
        # Transformers passes tools and documents always, and options win over tokens there, too.
        self._variables = {"tools": None, "documents": None, **special_tokens, **options}
        if len(text) > LONGEST:
            raise self.refusal(f"it is longer than {LONGEST:,} characters")
        self._sandbox = Sandbox({"strftime_now": _strftime_now})
        try:
            self._template = self._sandbox.compiled(text)
        except Exception as error:  # besides Jinja's own, RecursionError and SyntaxError
            raise self.refusal(str(error) or type(error).__name__) from error

    @property
    def content(self) -> tuple[str, str]:
        """All that decides what it makes of conversations."""
        return self.text, repr(sorted(self._variables.items()))

    def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
        """The conversation as text.

        Raises:
            Refusal: the template fails, is not safe or takes too long.
        """
        size = sum(len(text) for message in messages for text in message.values())
        self._sandbox.budget = _BUDGET + _BUDGET_A_CHARACTER * size
        said = {"messages": messages, "add_generation_prompt": add_generation_prompt}
        try:
            text = self._template.render({**self._variables, **said})
        except Exception as error:  # foreign code may fail in any way
            raise self.refusal(str(error) or type(error).__name__) from error
        if _HALF_CHARACTER.search(text):
            raise self.refusal("it writes half a character")
        return text

    def refusal(self, problem: str) -> Refusal:
        """The error that says in one line what is wrong with this template."""
        line = " ".join(problem[:_LONGEST_PROBLEM].split())
        return Refusal(f"{self._source}: the chat template does not work ({line}); pass another")


# What `strftime_now` knows to write.
_KNOWN = "%a %A %b %B %d %-d %e %F %H %I %j %m %-m %M %p %S %y %Y"
_DIRECTIVES = {directive: TODAY.strftime(directive) for directive in _KNOWN.split()}
_DATED = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(f"|replace('{directive}', '{text}')" for directive, text in _DIRECTIVES.items())
    + " }}{% endmacro %}\n"
)


def dated(text: str) -> str:
    """A template that says `TODAY` wherever it is rendered, for use as it was trained."""
    if "strftime_now" not in text or _DATED in text:
        return text
    return _DATED + text


def _strftime_now(format: str) -> str:
    def written(found: re.Match[str]) -> str:
        if found[0] not in _DIRECTIVES:
            raise jinja2.TemplateRuntimeError(f"strftime_now knows no {found[0]!r}")
        return _DIRECTIVES[found[0]]

    return re.sub("%-?.?", written, format)
