"""Docstrings name what a signature cannot tell: shapes, units, and what is refused."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import jaxorg

ROOT = Path(jaxorg.__file__).parent
MANY = 4  # parameters from which on each is described
ARRAYS = re.compile(r"\b(Array|ndarray|NDArray|ArrayLike|Floats)\b")


def public(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """The functions of a module and the methods of its classes that others may call. Commands are
    left out: they are described by the help of their options."""
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for prefix, body in [("", tree.body), *((f"{owner.name}.", owner.body) for owner in classes)]:
        for node in body:
            if not isinstance(node, ast.FunctionDef) or "typer." in ast.unparse(node.args):
                continue
            if not prefix.startswith("_") and re.match("[^_]|__call__", node.name):
                yield prefix + node.name, node


def parameters(function: ast.FunctionDef) -> list[ast.arg]:
    """All but `self` and `cls`."""
    given = function.args
    found = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    found += [each for each in (given.vararg, given.kwarg) if each]
    return [each for each in found if each.arg not in ("self", "cls")]


def section(function: ast.FunctionDef, name: str) -> str:
    """What stands under a heading of a docstring, without the indent of its entries."""
    text = ast.get_docstring(function) or ""
    found = re.search(rf"^{name}:\n((?: {{4}}.*\n?|\n)+)", text, re.MULTILINE)
    return re.sub(r"^ {4}", "", found[1], flags=re.MULTILINE) if found else ""


def undescribed(function: ast.FunctionDef) -> list[str]:
    """The parameters that `Args` should name and does not."""
    every = parameters(function)
    types = [ast.unparse(each.annotation) for each in every if each.annotation]
    takes_arrays = any(ARRAYS.search(each) for each in types)
    if not takes_arrays and len(every) < MANY:
        return []
    said = re.findall(r"^(\w+): \S", section(function, "Args"), re.MULTILINE)
    return [each.arg for each in every if each.arg not in said]


def refuses_silently(function: ast.FunctionDef) -> bool:
    """Whether it raises `Refusal` itself, and `Raises` names neither that nor a kind of it."""
    raised = (node.exc for node in ast.walk(function) if isinstance(node, ast.Raise))
    refuses = any(
        isinstance(each, ast.Call) and ast.unparse(each.func) == "Refusal" for each in raised
    )
    return refuses and not re.search(r"^Refusal: \S", section(function, "Raises"), re.MULTILINE)


def test_long_signatures_and_arrays_are_described_parameter_by_parameter() -> None:
    gaps = {
        f"{path.relative_to(ROOT)}: {name}": left
        for path in sorted(ROOT.rglob("*.py"))
        for name, function in public(ast.parse(path.read_text()))
        if (left := undescribed(function))
    }
    assert not gaps


def test_what_refuses_says_when() -> None:
    gaps = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted(ROOT.rglob("*.py"))
        for name, function in public(ast.parse(path.read_text()))
        if refuses_silently(function)
    ]
    assert not gaps


GAPS = '''
def short(a, b, c):
    """Three parameters."""

def long(a, b, c, d):
    """Four parameters.

    Args:
        a: one.
        b: two,
            c: which belongs to b.
        c: three.
    """

class Thing:
    def takes(self, x: Float[Array, "B T"]):
        """One array."""
        raise Refusal("x: it is wrong; mend it")

    def _hidden(self, x: Array):
        pass
'''


@pytest.mark.parametrize(
    "name, left, silent",
    [("short", [], False), ("long", ["d"], False), ("Thing.takes", ["x"], True)],
)
def test_a_gap_is_found(name: str, left: list[str], silent: bool) -> None:
    functions = dict(public(ast.parse(GAPS)))
    assert functions.keys() == {"short", "long", "Thing.takes"}
    assert undescribed(functions[name]) == left
    assert refuses_silently(functions[name]) == silent
