"""The house stands as docs/architecture.md draws it: imports run downwards only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "jaxorg"
COMMANDS = ("sweep", "measure", "report", "export", "fit", "bench", "pretrain", "list")
FLOORS: list[tuple[str, ...]] = [
    ("__main__",),
    (*COMMANDS, "notebook"),
    ("cli",),
    ("page",),
    ("summary",),
    ("engine.run", "engine.train", "engine.measure"),
    ("engine",),
    ("planning",),
    ("sweepfile",),
    ("evaluators",),
    ("organisms", "treatments"),
    ("experiments", "optimizers", "scorers"),
    ("data",),
    ("llama",),
    ("storage",),
    ("distributed",),
    ("stats",),
    ("errors", "config", "discovery", "suggest", "escape_controls", "user_cache"),
]
ANYWHERE = {  # read as parts of the ground, though they lie in a room above
    "sweepfile.labels",
    "sweepfile.training",
    "sweepfile.builtin",
    "planning.signature",
}


def floor(module: str) -> int:
    """How far down a module lies, by the longest name of a floor that begins its own."""
    names = {name: number for number, names in enumerate(FLOORS) for name in names}
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if (found := names.get(".".join(parts[:length]))) is not None:
            return found
    raise KeyError(module)


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, where it stands and in functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxorg")):
            continue
        module = (node.module or "").removeprefix("jaxorg").removeprefix(".")
        for alias in node.names:
            inner = ".".join(filter(None, (module, alias.name)))
            place = PACKAGE / inner.replace(".", "/")
            is_module = place.with_suffix(".py").exists() or place.is_dir()
            yield inner if is_module else module


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards_only(path: Path) -> None:
    own = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
    if own in ANYWHERE:
        return
    upwards = {name for name in imported(path) if name not in ANYWHERE and floor(name) < floor(own)}
    assert not upwards


def test_no_file_is_long() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {str(path): count for path, count in lines.items() if count > 500} == {}
