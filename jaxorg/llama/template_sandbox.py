"""The sandbox that chat templates, which are foreign Jinja code, are rendered in.

A template may use the filters, methods and functions listed here, which are those that published
templates use, and nothing else. Each use is paid for from a budget before it is done, by a price
that bounds its work and its result. So are the turns of loops and the calls of macros, which cost
what is written in them. `_Watched` rewrites the syntax tree so that no operation goes unseen.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    Sequence,
    ValuesView,
)
from functools import wraps
from typing import Any, NoReturn, cast

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

# A unit is what takes about a tenth of a microsecond, or as much memory as an element of a list.
_STEP = 20  # what a turn, call, filter or test costs besides
_DEEPEST = 20  # containers inside each other
_WIDEST = 16  # characters that JSON is indented by at a level

_TEXTS = (str, range)
_CONTAINERS = (dict, list, tuple, KeysView, ValuesView, ItemsView)
_VALUES = _TEXTS + _CONTAINERS  # whose methods are those in `_METHODS`

# What Jinja passes besides a template's own arguments, to filters and to calls.
_SURROUNDINGS = (jinja2.Environment, jinja2.runtime.Context, nodes.EvalContext)
_JINJAS_OWN = frozenset(("_loop_vars", "_block_vars"))

# What an operation costs, by its operands; sizes need not be counted beyond the second argument.
Price = Callable[[Sequence[Any], int], int]


def _size(value: Any, most: int, depth: int = 0) -> int:
    """About how much a value takes when it is written out; counting ends beyond `most`."""
    if isinstance(value, _TEXTS):
        return len(value)
    if isinstance(value, int):
        if value.bit_length() > 64:
            raise jinja2.TemplateRuntimeError("its numbers grow too large")
        return 1
    if value is None or isinstance(value, float | Undefined):
        return 1
    if not isinstance(value, _CONTAINERS):
        raise jinja2.TemplateRuntimeError(f"it treats a {type(value).__name__} as a value")
    if depth > _DEEPEST:
        raise jinja2.TemplateRuntimeError("its values are nested too deeply")
    total = len(value)
    for inner in [*value, *value.values()] if isinstance(value, dict) else value:
        if total > most:
            break
        total += _size(inner, most - total, depth + 1)
    return total


def _nothing(operands: Sequence[Any], most: int) -> int:
    """Of what looks at a value's type or length, or hands on a part of it."""
    return 0


def _sizes(operands: Sequence[Any], most: int) -> int:
    """Of what reads its operands once or a few times."""
    return _size(tuple(operands), most)


def _looking_up(operands: Sequence[Any], most: int) -> int:
    """Of a look-up in the first operand."""
    return _sizes(operands[1:], most)


def _product(operands: Sequence[Any], most: int) -> int:
    """Of what may read or write one operand for each part of another, or so many times."""
    return _sizes(operands, most) + math.prod(max(1, _extent(operand)) for operand in operands)


def _extent(value: Any) -> int:
    if isinstance(value, int):
        return abs(value)
    return len(value) if isinstance(value, _VALUES) else 1


def _ordering(operands: Sequence[Any], most: int) -> int:
    """Of what calls Python for each element, some ten times what it takes to read it."""
    return 10 * _sizes(operands, most)


def _pairs(operands: Sequence[Any], most: int) -> int:
    """Of what compares each element with each other, if their hashes are chosen to be equal."""
    return _sizes(operands, most) + _extent(operands[0]) ** 2


def _replacing(operands: Sequence[Any], most: int) -> int:
    whole = _sizes(operands, most)
    text, old, new = (str(operand) for operand in operands[:3])
    return whole + text.count(old) * len(new)


def _indenting(operands: Sequence[Any], most: int) -> int:
    if not isinstance(operands[0], str):  # Jinja would add a line to the caller's own list
        raise jinja2.TemplateRuntimeError("it indents what is no text")
    return _product(operands, most)


def _formatting(operands: Sequence[Any], most: int) -> int:
    text = str(operands[0])
    if re.search(r"%[-+ #0-9.]*\*|{[^{}]*{", text.replace("{{", "")):
        raise jinja2.TemplateRuntimeError("a width may not be an argument")
    fields, widths = len(re.findall("[{%]", text)), re.findall(r"\d+", text)
    return (1 + fields) * _sizes(operands, most) + sum(map(int, widths))


def _prices(names: Mapping[Price, str]) -> dict[str, Price]:
    return {name: price for price, words in names.items() for name in words.split()}


_FILTERS = _prices(
    {
        _nothing: "count d default first last length",
        _sizes: "abs capitalize e escape float int items list lower map reject rejectattr reverse "
        "safe select selectattr string title tojson upper",
        _ordering: "dictsort max min sort",
        _pairs: "unique",
        _product: "join trim",
        _indenting: "indent",
        _formatting: "format",
        _replacing: "replace",
    }
)
_TESTS = _prices(
    {
        _nothing: "boolean callable defined false float integer iterable mapping none number "
        "sameas sequence string true undefined",
        _sizes: "!= < <= == > >= divisibleby eq equalto even ge greaterthan gt in le lessthan "
        "lower lt ne odd upper",
    }
)
_METHODS = _prices(
    {
        _nothing: "items keys values",
        _looking_up: "get",
        _sizes: "capitalize count endswith find index isalnum isalpha isdigit islower isspace "
        "isupper lower partition removeprefix removesuffix split splitlines startswith swapcase "
        "title upper",
        # These search from the right, or for any of several characters, which takes longer.
        _product: "join lstrip rfind rsplit rstrip strip",
        _formatting: "format",
        _replacing: "replace",
    }
)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one template, whose operations pay from `budget`."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self, functions: Mapping[str, Callable[..., Any]]) -> None:
        """The template knows `functions`, `range`, `namespace` and `raise_exception`."""
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _Generation],
            finalize=self._written,
            optimized=False,  # nothing is computed before there is a budget
        )
        self.budget = 0
        given = {name: self.globals[name] for name in ("range", "namespace")}
        self.globals = {**given, "raise_exception": _raise_exception, **functions}
        self.filters["tojson"] = self._tojson
        self.filters = {
            **self._paying(self.filters, _FILTERS),
            _PAID: self._paid,
            _KEY: _key,
            _EACH: self._each,
            _SPENT: self._spend,
        }
        self.tests = self._paying(self.tests, _TESTS)

    def compiled(self, text: str) -> jinja2.Template:
        """The template, ready to be rendered.

        Raises:
            Exception: whatever Jinja raises for one that is not valid, or not allowed.
        """
        return self.from_string(_Watched().visit(self.parse(text)))

    def getitem(self, obj: Any, argument: Any) -> Any:  # attributes named by filters come here, too
        """`obj[argument]`, for the price of the argument's size; a name of an attribute is looked
        up the same way."""
        self._pay(_sizes, (argument,))
        return super().getitem(obj, argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may read an attribute: methods of plain values that have a price, and
        what a loop or namespace says of itself."""
        if isinstance(obj, _VALUES):
            return attr in _METHODS
        own = isinstance(obj, LoopContext | Namespace)
        return own and super().is_safe_attribute(obj, attr, value)

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        """Stop the rendering, where Jinja would write nothing, without a word.

        Raises:
            SecurityError: always.
        """
        problem = f"a template may not use {attribute!r} of a {type(obj).__name__}"
        raise jinja2.exceptions.SecurityError(problem)

    def call(self, context: Any, called: Any, /, *operands: Any, **named: Any) -> Any:
        """A call from a template, paid for by the operands' sizes, or at the method's own price.

        Args:
            context: Jinja's, of the rendering.
            called: a function, a macro, or a method of a value.
            operands: positional arguments.
            named: those by name, some of which are Jinja's own and cost nothing.
        """
        values = [*operands, *(named[name] for name in named if name not in _JINJAS_OWN)]
        self._spend(len(values))
        method = getattr(called, "__wrapped__", called)  # Jinja wraps str.format
        owner = getattr(method, "__self__", None)
        if isinstance(owner, _VALUES):
            if (price := _METHODS.get(method.__name__)) is None:
                self.unsafe_undefined(owner, method.__name__)
            self._pay(price, (owner, *values))
        elif not isinstance(called, Macro):  # which pay for what they do with their arguments
            self._pay(_sizes, values)
        return super().call(context, called, *operands, **named)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An arithmetic operation, paid for by the size of what comes of it before that is made.

        Args:
            context: Jinja's, of the rendering.
            operator: one of `intercepted_binops`.
            left: its first operand.
            right: its second.

        Raises:
            TemplateRuntimeError: a power is above 64, or the budget is spent.
        """
        text = isinstance(left, str) and operator == "%"
        self._pay(_formatting if text else _sizes, (left, right))
        if operator == "*":
            self._spend(_repeated(left, right) + _repeated(right, left))
        if operator == "**" and abs(right) > 64:
            raise jinja2.TemplateRuntimeError("its numbers grow too large")
        return super().call_binop(context, operator, left, right)

    def _spend(self, cost: int) -> None:
        """Pay, or stop the rendering."""
        self.budget -= cost
        if self.budget < 0:
            raise jinja2.TemplateRuntimeError("it takes too long or writes too much")

    def _pay(self, price: Price, operands: Sequence[Any]) -> None:
        """Pay for an operation that is about to be done with `operands`."""
        self._spend(_STEP + price(operands, self.budget))

    def _paid(self, value: Any) -> Any:
        """The value, once its size is paid for."""
        self._pay(_sizes, (value,))
        return value

    @jinja2.pass_context  # of the context, so that nothing is computed when it is compiled
    def _written(self, context: Any, value: Any) -> Any:
        return self._paid(value)

    def _each(self, values: Iterable[Any], cost: int) -> Iterator[Any]:
        """The values, each of which costs a turn of the loop."""
        for value in values:
            self._spend(cost)
            yield value

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """As in Transformers: Jinja's own sorts the keys and escapes the signs of HTML."""
        if _extent(indent) > _WIDEST:
            raise jinja2.TemplateRuntimeError(f"it indents by more than {_WIDEST} characters")
        encoder = json.JSONEncoder(
            ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        parts = []
        for part in encoder.iterencode(value):
            self._spend(len(part))
            parts.append(part)
        return "".join(parts)

    def _paying(self, calls: Mapping[str, Any], prices: Mapping[str, Price]) -> dict[str, Any]:
        """Filters or tests that pay before they work, and have done their work when they return."""

        def paying(call: Any, price: Price) -> Any:
            @wraps(call)  # with the marks by which Jinja knows what else to pass
            def paid(*arguments: Any, **named: Any) -> Any:
                given = (*arguments, *named.values())
                self._pay(price, [value for value in given if not isinstance(value, _SURROUNDINGS)])
                result = call(*arguments, **named)
                return list(result) if isinstance(result, Iterator) else result

            return paid

        return {name: paying(calls[name], price) for name, price in prices.items()}


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}`, by which training libraries mark what is learned.

    As in Transformers, variables that are set inside are not known outside.
    """

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Watched(NodeTransformer):
    """Sends what the environment does not intercept through filters that do."""

    def __init__(self) -> None:
        self._read = 0  # nodes and characters of text, up to here

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        before = self._read
        super().generic_visit(node)  # what is inside it comes first
        self._read += 1 + len(getattr(node, "data", ""))
        once = nodes.Const(_STEP + self._read - before, lineno=node.lineno)  # to go through it
        match node:
            case nodes.For(recursive=True):
                raise jinja2.TemplateSyntaxError("a loop may not be recursive", node.lineno)
            case (
                nodes.Block()
                | nodes.Extends()
                | nodes.Include()
                | nodes.Import()
                | nodes.FromImport()
            ):
                raise jinja2.TemplateSyntaxError("a template may not be in parts", node.lineno)
            case nodes.For():
                node.iter = _filtered(node.iter, _EACH, once)
            case nodes.Macro() | nodes.CallBlock():
                node.body.insert(0, nodes.ExprStmt(_filtered(once, _SPENT), lineno=node.lineno))
            case nodes.Concat():
                node.nodes = [_filtered(part, _PAID) for part in node.nodes]
            case nodes.Compare() | nodes.Operand():
                node.expr = _filtered(node.expr, _PAID)
            case nodes.Pair():
                node.key = _filtered(node.key, _KEY)
            case nodes.Getitem(arg=nodes.Slice()):
                node.node = _filtered(node.node, _PAID)
        return node


# Names that no template can write.
_PAID, _KEY, _EACH, _SPENT = "its size", "its key", "its turns", "a turn"


def _filtered(node: nodes.Node, name: str, *arguments: nodes.Expr) -> nodes.Expr:
    return nodes.Filter(
        cast(nodes.Expr, node), name, list(arguments), [], None, None, lineno=node.lineno
    )


def _repeated(value: Any, times: Any) -> int:
    """What it takes to write a text or list so many times."""
    if isinstance(value, str | list | tuple) and isinstance(times, int):
        return len(value) * max(0, times)
    return 0


def _key(key: Any) -> Any:
    """The key, which is no tuple: thousands of these with one hash are easily made."""
    if not isinstance(key, str | int):
        raise jinja2.TemplateRuntimeError("its keys are neither texts nor numbers")
    return key


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
