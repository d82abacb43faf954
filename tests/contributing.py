"""The examples of CONTRIBUTING.md, as files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
_FILE = re.compile(r"`((?:jaxorg|sweeps)/\S+)`:\n\n```\w+\n(.*?)```", re.DOTALL)
_PROJECT = re.compile(r"```toml\n(.*?)```", re.DOTALL)

FILES: Mapping[str, str] = dict(_FILE.findall(TEXT))
PROJECT: str = _PROJECT.findall(TEXT)[0]


def write_package(folder: Path, *, version: str = "1.0") -> Path:
    """The package of the document: its pieces, and the file that names them."""
    inside = folder / "jaxorg_loud"
    inside.mkdir(parents=True)
    (inside / "__init__.py").touch()
    for name, text in FILES.items():
        if name.startswith("jaxorg/"):
            (inside / Path(name).name).write_text(text, encoding="utf-8")
    project = PROJECT.replace('version = "1.0"', f'version = "{version}"')
    (folder / "pyproject.toml").write_text(project, encoding="utf-8")
    return folder
