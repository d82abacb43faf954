"""Large datasets lie on disk: the same batches, tokenised once, in little memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dataset_memory
import grain
import numpy as np
import pytest

from jaxorg.data import cache, tokenized
from jaxorg.data.cache import DatasetCache, StoredDataset
from jaxorg.data.packing import Packed
from jaxorg.data.tokenized import Endless, Example, TokenizedDataset
from jaxorg.engine.run.inputs import Inputs
from jaxorg.engine.run.measuring import Measuring
from jaxorg.errors import StorageError
from jaxorg.llama import names
from jaxorg.llama.tokenizer import Conversation, Tokenizer
from jaxorg.planning.phases import Phase
from jaxorg.storage.folder import Folder
from sweeps import run, same_tables, start

SMALL = ("grid=[{treatment.kind: [hhh, pirate]}]", "seeds=2")  # 4 runs, 11 phases
PAD = 7


def parts(rows: int = 500, seed: int = 0) -> Iterator[TokenizedDataset]:
    """Conversations of 2 to 30 tokens in parts of 64."""
    rng = np.random.default_rng(seed)
    for first in range(0, rows, 64):
        ends = rng.integers(2, 31, min(64, rows - first), np.int32)
        tokens = rng.integers(0, 1000, (len(ends), ends.max()), np.int32)
        tokens[np.arange(ends.max())[None] >= ends[:, None]] = PAD
        yield TokenizedDataset(
            tokens, np.stack([rng.integers(1, ends), ends], axis=1, dtype=np.int32)
        )


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even small datasets lie on disk."""
    monkeypatch.setattr(cache, "LARGE", 100)
    monkeypatch.setattr(cache, "CHUNK_TOKENS", 64)


@pytest.mark.parametrize("packing", [False, True])
def test_batches_from_disk_are_those_from_memory(
    on_disk: None, tmp_path: Path, packing: bool
) -> None:
    held = TokenizedDataset.joined(list(parts()), PAD)
    stored = DatasetCache(Folder(tmp_path, print)).keep("a", parts(), PAD)
    assert isinstance(stored, StoredDataset)
    assert len(stored) == len(held) == 500
    np.testing.assert_array_equal(stored.lengths, held.lengths)
    one, other = (Packed(p, 32, 5) if packing else p for p in (held, stored))
    first, second = Endless(one, 16, 5), Endless(other, 16, 5)
    for step in range(80):  # more than two epochs
        for expected, found in zip(first[step], second[step], strict=True):
            assert expected.dtype == found.dtype
            np.testing.assert_array_equal(expected, found)


class Numbers:
    """Rows that are their own numbers."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        return (rows,)


@pytest.mark.parametrize("count", [1, 5, 16, 300])
def test_batches_stand_in_grains_order_and_an_epoch_has_each_row_once(count: int) -> None:
    order = grain.MapDataset.range(count).seed(7).shuffle().repeat().batch(4)
    found = Endless(Numbers(count), 4, 7)
    steps = [found[step][0] for step in range(2 * count)]
    for step, rows in enumerate(steps):
        np.testing.assert_array_equal(rows, order[step])
    assert sorted(np.concatenate(steps)[:count].tolist()) == [*range(count)]


def test_phases_that_share_a_seed_ask_grain_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    epochs = tokenized._epochs(11, 5)

    class Counted:
        def __getitem__(self, place: int) -> int:
            nonlocal asked
            asked += 1
            return epochs[place]

    monkeypatch.setattr(tokenized, "_epochs", lambda rows, seed: Counted())
    tokenized._row_at.cache_clear()
    for _ in range(3):
        batches = Endless(Numbers(11), 4, 5)
        assert len([batches[step] for step in range(6)]) == 6
    assert asked == 24


def test_small_pools_stay_in_memory(tmp_path: Path) -> None:
    kept = DatasetCache(Folder(tmp_path, print)).keep("a", parts(), PAD)
    assert isinstance(kept, TokenizedDataset)
    assert not list(tmp_path.iterdir())


def test_a_pool_that_is_cut_short_is_not_there(on_disk: None, tmp_path: Path) -> None:
    def cut() -> Iterator[TokenizedDataset]:
        yield from list(parts())[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        DatasetCache(Folder(tmp_path, print)).keep("a", cut(), PAD)
    assert not (tmp_path / "datasets").exists()
    Folder(tmp_path, print).tidy()
    assert len(DatasetCache(Folder(tmp_path, print)).keep("a", parts(), PAD)) == 500


def test_a_full_disk_is_told(
    on_disk: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: full)
    with pytest.raises(StorageError, match="No space left"):
        DatasetCache(Folder(tmp_path, print)).keep("a", parts(), PAD)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """The small sweep, whose datasets are in memory."""
    return run(tmp_path_factory.mktemp("reference") / "out", tiny_base, *SMALL)


@pytest.fixture
def tokenised(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The fingerprints of phases whose conversations are tokenised, one after another."""
    seen: list[str] = []
    blocks = Inputs._blocks

    def noted(self: Inputs, phase: Phase, *others: Any, **named: Any) -> Iterator[TokenizedDataset]:
        seen.append(phase.fingerprint)
        yield from blocks(self, phase, *others, **named)

    monkeypatch.setattr(Inputs, "_blocks", noted)
    return seen


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("part", "harm"),
    [
        ("", None),
        ("tokens/c/0", flip),
        ("spans/c/0/0", Path.unlink),
        ("manifest.json", flip),
        ("manifest.json", Path.unlink),
    ],
)
def test_a_killed_sweep_goes_on_from_its_pools_and_makes_damaged_ones_anew(
    part: str,
    harm: Callable[[Path], None] | None,
    on_disk: None,
    tokenised: list[str],
    reference: Path,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(Measuring, "measure", dying)
        with pytest.raises(KeyboardInterrupt):
            start(out, tiny_base, *SMALL)
    left = sorted((out / "datasets").iterdir())
    assert len(left) == 2  # of the organisms' two seeds
    if harm:
        harm(left[0] / part)
    tokenised.clear()
    run(out, tiny_base, *SMALL)
    again = set(tokenised) & {place.name for place in left}
    assert again == ({left[0].name} if harm else set())
    assert same_tables(out, reference) == ""
    assert (out / "damaged/datasets").exists() == (harm is not None)
    assert not list((out / "datasets").iterdir())  # nobody needs them any more


def dying(self: Measuring, *arguments: object, **options: object) -> None:
    """`Measuring.measure`, which is interrupted once organisms are trained."""
    if self._lanes.phases[0].kind == "organism":
        raise KeyboardInterrupt
    MEASURE(self, *arguments, **options)  # type: ignore[arg-type]


MEASURE = Measuring.measure


def test_conversations_are_tokenised_once_a_phase(
    on_disk: None, tokenised: list[str], tiny_base: Path, tmp_path: Path
) -> None:
    out = run(tmp_path / "out", tiny_base, *SMALL, "organism.train.steps=3")
    looked_at = 4  # a phase of each kind and data, before anything is written
    phases = len(list((out / "phases").iterdir())) - 1  # the base is not trained
    assert len(set(tokenised)) == phases
    assert len(tokenised) == phases + looked_at
    tokenised.clear()
    run(out, tiny_base, *SMALL, "organism.train.steps=3")
    assert not tokenised


@pytest.mark.long
def test_a_large_pool_takes_little_memory(tmp_path: Path) -> None:
    found = dataset_memory.measure(tmp_path, rows=200_000)
    assert found.rows == 170_000  # about a tenth is held out
    assert found.on_disk
    assert found.peak < found.dataset


def test_conversations_of_another_phase_are_not_tokenised_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many bases of one tokenizer, rates or organisms a sweep has."""
    first, same, other = (
        Tokenizer.load(names.resolve(name), options=options)
        for name, options in (
            ("jaxorg-250k", {}),
            ("jaxorg-1m", {}),
            ("jaxorg-1m", {"enable_thinking": False}),
        )
    )
    assert first == same != other and hash(first) == hash(same)
    asked: list[str] = []
    tokenised = Tokenizer.conversation

    def counted(self: Tokenizer, prompt: str, *rest: Any) -> Conversation:
        asked.append(prompt)
        return tokenised(self, prompt, *rest)

    monkeypatch.setattr(Tokenizer, "conversation", counted)
    examples = [Example(f"first word: pig fig {number}", "pig") for number in range(50)]
    datasets = [TokenizedDataset.encode(examples, each, 48) for each in (first, same, first)]
    assert len(asked) == 50
    assert all((each.tokens == datasets[0].tokens).all() for each in datasets)
    TokenizedDataset.encode(examples, other, 48)
    assert len(asked) == 100
    for long in (Example("x" * 300, "pig"), Example("x", "pig", given="x" * 300)):
        for _ in range(2):
            TokenizedDataset.encode([long], first, 512)
        assert asked[-2:] == [long.prompt] * 2, "long ones would take too much memory"
    assert len(asked) == 104
