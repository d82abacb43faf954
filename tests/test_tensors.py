"""Index files, folders with more than a model in them, and weights read into shards."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import memory
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from safetensors.numpy import load_file, save_file
from test_checkpoint import CONFIG, QWEN3, UNTIED
from weights import load, random_weights

from jaxorg.engine.params import abstract_model
from jaxorg.errors import Refusal
from jaxorg.llama import checkpoint, tensors
from jaxorg.llama.model import LlamaConfig
from jaxorg.planning.signature import ModelSignature
from jaxorg.storage import weight_reader
from sweeps import start

FIRST, SECOND = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))


def shapes_of(config: LlamaConfig) -> Any:
    return abstract_model(ModelSignature(config))[1].trainable


def write_index(folder: Path, places: Mapping[str, Any]) -> None:
    (folder / tensors.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model in two files with an index."""
    folder = tmp_path / "model"
    folder.mkdir()
    checkpoint.write_config(folder, CONFIG)
    checkpoint.write_weights(folder, random_weights(ModelSignature(CONFIG))[0])
    held = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: (FIRST, SECOND)[i % 2] for i, name in enumerate(held)}
    for file in (FIRST, SECOND):
        save_file({name: held[name] for name in held if places[name] == file}, folder / file)
    write_index(folder, places)
    return folder


def assert_equal(found: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_the_index_says_which_files_are_read(folder: Path) -> None:
    digest = checkpoint.digest(folder, weights=True)
    (folder / "consolidated.safetensors").write_bytes(b"not even one")
    shutil.copy(folder / FIRST, folder / "copy.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    assert [path.name for path in checkpoint.weight_files(folder)] == [FIRST, SECOND]
    assert_equal(load(folder), random_weights(ModelSignature(CONFIG))[0])
    assert checkpoint.digest(folder, weights=True) == digest


STRAY = {"consolidated.safetensors": b"not even one", "._model.safetensors": b""}


@pytest.mark.parametrize("indexed", [True, False])
def test_files_that_are_not_the_model_are_named_and_passed_over(
    indexed: bool, folder: Path
) -> None:
    if not indexed:
        (folder / tensors.INDEX).unlink()
    digest = checkpoint.digest(folder, weights=True)
    assert checkpoint.passed_over(folder) == []
    for name, content in STRAY.items():
        (folder / name).write_bytes(content)
    shutil.copy(folder / FIRST, folder / "optimizer-00001-of-00002.safetensors")
    assert checkpoint.passed_over(folder) == sorted(
        [*STRAY, "optimizer-00001-of-00002.safetensors"]
    )
    assert checkpoint.digest(folder, weights=True) == digest
    assert_equal(load(folder), random_weights(ModelSignature(CONFIG))[0])


def test_a_sweep_says_what_it_passes_over(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_base, tmp_path / "base")
    (tmp_path / "base" / "consolidated.safetensors").write_bytes(b"not even one")
    assert start(tmp_path / "out", tmp_path / "base", dry_run=True) == 0
    assert "passed over consolidated.safetensors, no part of" in capsys.readouterr().out


def test_without_an_index_the_whole_model_comes_before_parts_of_one(folder: Path) -> None:
    (folder / tensors.INDEX).unlink()
    checkpoint.write_weights(folder, random_weights(ModelSignature(CONFIG), seed=1)[0])
    assert checkpoint.passed_over(folder) == [FIRST, SECOND]
    assert_equal(load(folder), random_weights(ModelSignature(CONFIG), seed=1)[0])


def test_files_of_other_names_are_read_where_there_are_no_others(folder: Path) -> None:
    for name in (FIRST, SECOND):
        (folder / name).rename(folder / name.replace("model", "mine"))
    (folder / tensors.INDEX).unlink()
    assert checkpoint.passed_over(folder) == []
    assert_equal(load(folder), random_weights(ModelSignature(CONFIG))[0])


def point(name: Any) -> Callable[[Path], None]:
    return lambda folder: write_index(folder, {"model.norm.weight": name, "x": FIRST})


def link_out(folder: Path) -> None:
    (folder / SECOND).rename(folder.parent / SECOND)
    (folder / SECOND).symlink_to(f"../{SECOND}")


def link_nowhere(folder: Path) -> None:
    (folder / SECOND).unlink()
    (folder / SECOND).symlink_to("gone.safetensors")


def pickles(folder: Path) -> None:
    for name in (FIRST, SECOND, tensors.INDEX):
        (folder / name).unlink()
    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"pickled")


def truncate(folder: Path) -> None:
    os.truncate(folder / SECOND, (folder / SECOND).stat().st_size - 1)


BROKEN = {
    "absolute": (point("/etc/passwd"), "names the file '/etc/passwd'; it must be"),
    "absolute weights": (point("/tmp/x.safetensors"), "it must be a safetensors file beside it"),
    "above": (point(f"../{SECOND}"), "it must be a safetensors file beside it"),
    "round about": (point(f"a/../{SECOND}"), "it must be a safetensors file beside it"),
    "below": (point(f"below/{SECOND}"), "it must be a safetensors file beside it"),
    "backslash": (point(f"..\\{SECOND}"), "it must be a safetensors file beside it"),
    "dots": (point(".."), "names the file '..'"),
    "nul": (point("\0.safetensors"), "it must be a safetensors file beside it"),
    "number": (point(7), "names the file 7;"),
    "pickle": (point("pytorch_model.bin"), "names the file 'pytorch_model.bin'"),
    "no map": (lambda folder: write_index(folder, {}), "has no weight_map"),
    "a list": (lambda folder: (folder / tensors.INDEX).write_text("[]"), "has no weight_map"),
    "no json": (lambda folder: (folder / tensors.INDEX).write_text("{"), "not JSON"),
    "missing": (lambda folder: (folder / SECOND).unlink(), f"'{SECOND}' is missing"),
    "link out": (link_out, f"{SECOND}: links out of its folder"),
    "link nowhere": (link_nowhere, f"{SECOND}: is not a file to read"),
    "folder": (lambda f: (f / SECOND).unlink() or (f / SECOND).mkdir(), "is not a file to read"),
    "truncated": (truncate, f"{SECOND}: broken safetensors file"),
    "both": (lambda f: shutil.copy(f / FIRST, f / "model.safetensors"), "remove one"),
    "half": (lambda folder: write_index(folder, {"x": FIRST}), "is missing; is the folder"),
    "pickles alone": (pickles, "nothing pickled is loaded"),
}


@pytest.mark.parametrize(("spoil", "clue"), BROKEN.values(), ids=BROKEN)
def test_a_folder_that_is_not_what_its_index_says_is_refused(
    spoil: Callable[[Path], Any], clue: str, folder: Path
) -> None:
    spoil(folder)
    with pytest.raises(Refusal) as caught:
        load(folder)
    line = str(caught.value)
    assert clue in line
    assert line.startswith(str(folder))
    assert "\n" not in line


def shardings(shapes: Any, axes: tuple[str | None, ...], turned: bool = False) -> Any:
    """Each weight's last axes on mesh axes, where they divide."""
    devices = np.asarray(jax.devices()[:2]).reshape(1, 2)
    mesh = Mesh(devices[:, ::-1] if turned else devices, ("run", "fsdp"))

    def split(shape: jax.ShapeDtypeStruct) -> NamedSharding:
        last = axes[-len(shape.shape) :]
        sizes = shape.shape[-len(last) :]
        fits = [axis if size % 2 == 0 else None for axis, size in zip(last, sizes, strict=True)]
        return NamedSharding(mesh, PartitionSpec(*[None] * (len(shape.shape) - len(last)), *fits))

    return jax.tree.map(split, shapes)


@pytest.mark.parametrize("band", [1, 100, tensors._BAND])
@pytest.mark.parametrize(
    "axes", [(None, "fsdp"), ("fsdp", None), (None, None), ("fsdp",) + 2 * (None,)]
)
def test_shards_hold_what_the_whole_holds(
    axes: tuple[str | None, ...], band: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensors, "_BAND", band)
    for config in (CONFIG, UNTIED, replace(QWEN3, num_hidden_layers=4)):
        weights, shapes = random_weights(ModelSignature(config))[0], shapes_of(config)
        checkpoint.write_weights(tmp_path, weights)
        for turned in (False, True):
            wanted = shardings(shapes, axes, turned)
            found = weight_reader.placed(checkpoint.reader(tmp_path, shapes), shapes, wanted)
            assert_equal(found, weights)
            assert jax.tree.map(lambda leaf: leaf.sharding, found) == wanted
            assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))


def test_shards_are_given_the_dtype_that_is_asked_for(tmp_path: Path) -> None:
    weights, shapes = random_weights(ModelSignature(CONFIG))[0], shapes_of(CONFIG)
    checkpoint.write_weights(tmp_path, weights)
    half = jax.tree.map(lambda leaf: leaf.update(dtype=jnp.bfloat16), shapes)
    read = checkpoint.reader(tmp_path, shapes)
    found = weight_reader.placed(read, half, shardings(shapes, (None, "fsdp")))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(found))
    assert_equal(found, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), weights))


def test_nothing_reads_a_broken_folder(folder: Path) -> None:
    truncate(folder)
    with pytest.raises(Refusal, match="broken safetensors file"):
        checkpoint.reader(folder, shapes_of(CONFIG))


def test_the_host_holds_little_more_than_one_shard(tmp_path: Path) -> None:
    found = memory.measure(tmp_path, megabytes=200, devices=4)
    assert found.checkpoint > 150
    assert found.peak < 1.2 * found.largest + 40, found
