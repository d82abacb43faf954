"""The files of a model's folder: found, read and never trusted.

A folder comes from anywhere. Its files must be regular, of a size that makes sense, and inside
it: a link may lead to another file of the folder, or, in the Hugging Face cache's layout, from
`<repo>/snapshots/<revision>/` into `<repo>/blobs/`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxorg.runtime import Refusal

LARGEST_TEXT = 2**28  # bytes of a file other than weights; Llama 3's tokenizer.json has 2**24


def find(folder: Path, name: str) -> Path | None:
    """A file of the folder, or None where there is none.

    Raises:
        Refusal: it is no regular file to read, or a link out of the folder.
    """
    path = folder / name
    if not os.path.lexists(path):
        return None
    if not any(Path(os.path.realpath(path)).is_relative_to(root) for root in _roots(folder)):
        raise Refusal(f"{path}: links out of its folder; copy the file itself there")
    if not (os.path.isfile(path) and os.access(path, os.R_OK)):
        raise Refusal(f"{path}: is not a file to read; copy it again")
    return path


def _roots(folder: Path) -> Iterator[Path]:
    """Where the files of a folder may really be."""
    real = Path(os.path.realpath(folder))
    yield real
    if real.parent.name == "snapshots":
        yield real.parent.parent / "blobs"


def read_text(path: Path, errors: str = "strict") -> str:
    """The text of a file that `find` found.

    Raises:
        Refusal: it is too large, or no text.
    """
    if path.stat().st_size > LARGEST_TEXT:
        raise Refusal(f"{path}: is larger than {LARGEST_TEXT:,} bytes; copy it again")
    try:
        return path.read_text(encoding="utf-8", errors=errors)
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{path}: cannot be read ({error}); copy it again") from error


def read_json(path: Path, problem: str = "not JSON") -> Any:
    """What a JSON file that `find` found holds.

    Raises:
        Refusal: it is not JSON, or spells half a character; it says `problem`.
    """
    text = read_text(path)
    try:
        content = json.loads(text)
        json.dumps(content, ensure_ascii=False).encode()  # fails for half a character
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{path}: {problem} ({error}); download it again") from error
    return content
