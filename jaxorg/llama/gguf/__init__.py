"""Models in one GGUF file, as llama.cpp has them: made a Hugging Face folder, once, in the cache.

What is read from then on is that folder, so that a GGUF file is trained, measured and exported like
any other model. Quantised weights become fp32 exactly as they are.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxorg.distributed.interrupt import Unwinding
from jaxorg.errors import Refusal, StorageError, install
from jaxorg.llama.config_file import read_config
from jaxorg.llama.shards import write_shards
from jaxorg.storage.folder import Folder
from jaxorg.user_cache import cache_folder

SUFFIX = ".gguf"
VERSION = 1  # raise it whenever the same file gives another folder


def folder_of(path: Path) -> Path:
    """The Hugging Face folder of a GGUF file, in this user's cache; it is made unless it is there.

    Raises:
        Refusal: the file is broken or of a model that is not supported, the package `gguf` is not
            installed, or there is no cache folder.
        StorageError: the disk does not take the folder.
    """
    cache = cache_folder()
    if cache is None:
        raise Refusal(
            "JAXORG_CACHE: not set, and this user has no home folder; set it to a folder in which "
            f"{path} can be kept as a Hugging Face folder"
        )
    try:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Refusal(f"{path}: cannot be read ({error.strerror}); copy it again") from error
    place = cache / "gguf" / f"{content[:32]}-{VERSION}"
    if not (place / "config.json").is_file():
        _convert(path, place)
    return place


def _convert(path: Path, place: Path) -> None:
    try:
        from jaxorg.llama.gguf import config, header, tokenizer, weights
    except ImportError as error:
        raise Refusal(f"{path}: GGUF files need the package gguf; {install('gguf')}") from error
    found = header.read_header(path)
    weights.check(found)
    made = tokenizer.tokenizer(found)
    about = {**config.config(found), **tokenizer.generation(found)}
    with _making(place) as beside:
        _write(beside / "config.json", about)
        try:
            shape = read_config(beside)
        except Refusal as problem:  # which names a file that will not be there
            said = str(problem).removeprefix(f"{beside / 'config.json'}: ")
            raise Refusal(f"{path}: {said}") from problem
        interleaved = about["model_type"] in ("llama", "mistral")
        heads = weights.Heads(shape.num_attention_heads, shape.num_key_value_heads)
        tensors = weights.tensors(found, heads if interleaved else None)
        _write(beside / "generation_config.json", tokenizer.generation(found))
        _write(beside / "tokenizer_config.json", tokenizer.settings(found))
        made.save(str(beside / "tokenizer.json"))
        named = ((tensor.name, weights.read(path, tensor)) for tensor in tensors)
        write_shards(beside, named, [tensor.bytes for tensor in tensors])


@contextmanager
def _making(place: Path) -> Iterator[Path]:
    """Give a folder to write to, which then becomes `place` as a whole."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        work = tempfile.TemporaryDirectory(dir=place.parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise StorageError(f"{place.parent}: {error.strerror}; set JAXORG_CACHE") from error
    with Unwinding(), work as name, Folder(Path(name), print).publishing(place) as beside:
        beside.mkdir()
        yield beside


def _write(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")
