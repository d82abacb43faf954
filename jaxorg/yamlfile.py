"""YAML as sweep files use it: safe, without repeated keys, and `3e-4` is a number."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from jaxorg.runtime import Refusal


class _Loader(yaml.SafeLoader):
    """The safe loader, which builds plain values only."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is not text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 takes 3e-4 for text, since it has no dot.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)$"),
    list("-+.0123456789"),
)


def parse(text: str, source: str) -> Any:
    """The value that YAML `text` stands for.

    Raises:
        Refusal: it is not valid YAML; `source` names it in the message.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise Refusal(f"{source}{where}: not valid YAML ({problem}); mend it") from error
