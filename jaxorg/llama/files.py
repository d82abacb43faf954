"""The files of a model's folder: found, read and never trusted.

A folder comes from anywhere. Its files must be regular, of a size that makes sense, and inside
it: a link may lead to another file of the folder, or, in the Hugging Face cache's layout, from
`<repo>/snapshots/<revision>/` into `<repo>/blobs/`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jaxorg.errors import Refusal

LARGEST_TEXT = 2**26  # bytes of a file other than weights; Gemma 3's tokenizer.json has 2**25
MOST_VALUES = 2**23  # that a JSON file holds; that tokenizer.json holds 2**21


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
        Refusal: it is not JSON, or spells half a character, as `problem` says; or it holds too
            much.
    """
    text = read_text(path)
    if sum(map(text.count, ",[{")) > MOST_VALUES:
        raise Refusal(f"{path}: holds more than {MOST_VALUES:,} values; copy it again")
    try:
        content = json.loads(text)
        json.dumps(content, ensure_ascii=False).encode()  # fails for half a character
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{path}: {problem} ({error}); download it again") from error
    return content


def read_object(path: Path) -> dict[str, Any]:
    """What a JSON file that `find` found holds, which is an object.

    Raises:
        Refusal: as `read_json` does, or it holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise Refusal(f"{path}: holds no JSON object; download it again")
    return content


def digest(paths: Iterable[Path]) -> str:
    """16 hex digits that name the content of files in their order, and what they are called."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(f"{path.name}:{hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
    return total.hexdigest()[:16]
