"""Chat templates: foreign Jinja code, rendered in a sandbox and on a budget.

The sandbox keeps a template from reaching Python. The budget keeps it from running for hours or
filling memory: every turn of a loop, call, filter and operation costs what it may take, before it
is done. `_Watched` rewrites the template's syntax tree so that none goes unseen.

Not covered: what one operation takes beyond the size of its operands (a sort, say), and a template
that uses up its whole budget, some milliseconds, for each of thousands of prompts.
"""

from __future__ import annotations

import math
import re
from collections.abc import (
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    ValuesView,
)
from datetime import datetime
from functools import wraps
from types import MappingProxyType
from typing import Any, NoReturn, cast

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from jaxorg.runtime import Refusal

# Some templates write today's date into the system prompt. The same run must give the same tokens
# tomorrow, so today is always the date that Llama 3's templates fall back on.
_TODAY = datetime(2024, 7, 26)

LONGEST = 2**18  # characters of a template
_BUDGET = 2_000_000  # a rendering; Llama 3's templates need some thousands
_BUDGET_A_CHARACTER = 100  # of the messages, which a template may copy many times
_OWN = frozenset(("messages", "add_generation_prompt"))  # variables that are no options
_STEP = 200  # what a turn or call costs besides its operands
_DEEPEST = 20  # containers inside each other

# Methods and filters whose result may be as large as a number that they are given, and those whose
# result may be as large as the product of two operands.
_PRODUCTS = frozenset(
    ("replace", "join", "indent", "wordwrap", "batch", "slice", "translate", "expandtabs")
)
_FORMATS = frozenset(("format", "format_map"))
_WIDTHS = {
    *_PRODUCTS,
    *_FORMATS,
    "center",
    "ljust",
    "rjust",
    "zfill",
    "to_bytes",
    "tojson",
    "round",
}
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
        """`options` are variables that the template knows besides, such as `enable_thinking`.

        Raises `Refusal` for a template that does not compile, or options that are not free.
        """
        self._source = source
        if taken := sorted(_OWN.intersection(options)):
            raise Refusal(f"template_options: {taken[0]} is set by jaxorg; remove it")
        # Transformers passes tools and documents always, and options win over tokens there, too.
        self._variables = {"tools": None, "documents": None, **special_tokens, **options}
        if len(text) > LONGEST:
            raise self.refusal(f"it is longer than {LONGEST:,} characters")
        self._environment = _Environment()
        try:
            self._environment.budget = _BUDGET
            tree = _Watched().visit(self._environment.parse(text))
            self._template = self._environment.from_string(tree)
        except Exception as error:  # besides Jinja's own, RecursionError and SyntaxError
            raise self.refusal(str(error) or type(error).__name__) from error

    def render(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool) -> str:
        """The conversation as text. Raises `Refusal` when the template fails or is not safe."""
        size = sum(len(text) for message in messages for text in message.values())
        self._environment.budget = _BUDGET + _BUDGET_A_CHARACTER * size
        try:
            text = self._template.render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                **self._variables,
            )
        except Exception as error:  # foreign code may fail in any way
            raise self.refusal(str(error) or type(error).__name__) from error
        if _HALF_CHARACTER.search(text):
            raise self.refusal("it writes half a character")
        return text

    def refusal(self, problem: str) -> Refusal:
        """The error that says in one line what is wrong with this template."""
        line = " ".join(problem.split())
        return Refusal(f"{self._source}: the chat template does not work ({line}); pass another")


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, whose calls, filters, tests and operators pay from `budget`."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols"],
            finalize=_paid,
        )
        self.budget = 0
        del self.globals["lipsum"]  # writes as much text as asked for
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _TODAY.strftime
        self.tests = self._paying(self.tests)
        self.filters = {**self._paying(self.filters), _PAID: _paid, _EACH: _each}

    def spend(self, cost: int) -> None:
        """Pay, or stop the rendering."""
        self.budget -= cost
        if self.budget < 0:
            raise jinja2.TemplateRuntimeError("it takes too long or writes too much")

    def pay(self, name: str, operands: Sequence[Any]) -> None:
        """Pay for an operation that is about to be done with `operands`."""
        grows = name in _WIDTHS
        sizes = [abs(x) if grows and type(x) is int else _size(x, self.budget) for x in operands]
        self.spend(_STEP + sum(sizes))
        if name in _PRODUCTS:
            self.spend(math.prod(sorted(sizes)[-2:]))
        if name in _FORMATS:
            text = next((x for x in operands if isinstance(x, str)), "")
            if re.search(r"%[-+ #0-9.]*\*", text):
                raise jinja2.TemplateRuntimeError("a width may not be an argument")
            fields, widths = len(re.findall("[{%]", text)), re.findall(r"\d+", text)
            self.spend(fields * sum(sizes) + sum(map(int, widths)))

    def call(*arguments: Any, **named: Any) -> Any:  # Jinja passes self and two more by position
        self, context, called, *operands = arguments
        method = getattr(called, "__wrapped__", called)  # Jinja wraps str.format
        owner = getattr(method, "__self__", None)
        self.pay(getattr(method, "__name__", ""), [owner, *operands, *named.values()])
        result = super(_Environment, self).call(context, called, *operands, **named)
        self.pay("", (result,))
        return result

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.pay("", (left, right))
        if operator == "*":
            self.spend(_repeated(left, right) + _repeated(right, left))
        if operator == "%" and isinstance(left, str):
            self.pay("format", (left, right))
        if operator == "**" and abs(right) > 64:
            raise jinja2.TemplateRuntimeError("its numbers grow too large")
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int) and result.bit_length() > 64:
            raise jinja2.TemplateRuntimeError("its numbers grow too large")
        return result

    def _paying(self, calls: Mapping[str, Any]) -> dict[str, Any]:
        """Filters or tests that pay for their operands before they work."""

        def paying(name: str, call: Any) -> Any:
            @wraps(call)  # with the marks by which Jinja knows what else to pass
            def paid(*arguments: Any, **named: Any) -> Any:
                self.pay(name, [*arguments, *named.values()])
                return call(*arguments, **named)

            return paid

        return {name: paying(name, call) for name, call in calls.items()}


class _Watched(NodeTransformer):
    """Sends what the sandbox does not intercept through filters that do."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        super().generic_visit(node)  # what is inside it comes first
        match node:
            case nodes.For():
                written = sum(len(text.data) for text in node.find_all(nodes.TemplateData))
                node.iter = _filtered(node.iter, _EACH, nodes.Const(_STEP + written))
            case nodes.List() | nodes.Dict():
                return _filtered(node, _PAID)
            case nodes.Tuple(ctx="load"):
                return _filtered(node, _PAID)
            case nodes.Concat():
                node.nodes = [_filtered(part, _PAID) for part in node.nodes]
            case nodes.Compare():
                node.expr = _filtered(node.expr, _PAID)
            case nodes.Operand():
                node.expr = _filtered(node.expr, _PAID)
            case nodes.Getitem(arg=nodes.Slice()):
                node.node = _filtered(node.node, _PAID)
        return node


_PAID, _EACH = "jaxorg.paid", "jaxorg.each"


def _filtered(node: nodes.Node, name: str, *arguments: nodes.Expr) -> nodes.Expr:
    return nodes.Filter(
        cast(nodes.Expr, node), name, list(arguments), [], None, None, lineno=node.lineno
    )


@jinja2.pass_context  # of the context, so that nothing is computed when it is compiled
def _paid(context: Any, value: Any) -> Any:
    """The value, once its size is paid for."""
    context.environment.pay("", (value,))
    return value


@jinja2.pass_context
def _each(context: Any, values: Iterable[Any], cost: int) -> Iterator[Any]:
    """The values, each of which costs a turn of the loop."""
    for value in values:
        context.environment.spend(cost)
        yield value


def _size(value: Any, most: int, depth: int = 0) -> int:
    """About how much a value takes when it is written out; counting ends beyond `most`."""
    if isinstance(value, str | bytes | range):
        return len(value)
    if not isinstance(value, dict | list | tuple | set | KeysView | ValuesView | ItemsView):
        return 1
    if depth > _DEEPEST:
        raise jinja2.TemplateRuntimeError("its values are nested too deeply")
    total = len(value)
    for inner in [*value, *value.values()] if isinstance(value, dict) else value:
        if total > most:
            break
        total += _size(inner, most - total, depth + 1)
    return total


def _repeated(value: Any, times: Any) -> int:
    """What it takes to write a text or list so many times."""
    if isinstance(value, str | list | tuple) and isinstance(times, int):
        return len(value) * max(0, times)
    return 0


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
