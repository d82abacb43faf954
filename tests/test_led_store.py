"""A store that the first of several processes leads; here they are threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxorg.distributed import processes
from jaxorg.engine.run.recorder import new_record
from jaxorg.errors import StorageError
from jaxorg.storage.folder import Folder
from jaxorg.storage.led_store import LedStore

COUNT = 2
SECONDS = 20.0  # after which a process that waits for the other has failed
STATE = {"a": np.arange(3.0)}
PROGRESS = {"step": 7, "record": new_record()}


class Coordinator:
    """JAX's key-value store."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}
        self._changed = threading.Condition()

    def key_value_set(self, key: str, value: str) -> None:
        with self._changed:
            self._said[key] = value
            self._changed.notify_all()

    def blocking_key_value_get(self, key: str, _: int) -> str:
        with self._changed:
            if not self._changed.wait_for(lambda: key in self._said, SECONDS):
                raise TimeoutError(f"nobody says {key}")
            return self._said[key]

    def key_value_delete(self, place: str) -> None:
        with self._changed:
            for key in [key for key in self._said if key.startswith(f"{place}/")]:
                del self._said[key]


class Own(threading.local):
    """Each thread's side of the rounds."""

    rounds: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rounds, name)


@pytest.fixture
def in_both(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[Callable[[LedStore], Any]], list[Any]]]:
    """Calls a function in both processes, each with a store of one folder; what it returns or
    raises in each."""
    coordinator, own = Coordinator(), Own()
    monkeypatch.setattr(processes, "_rounds", own)
    sides = [processes._Rounds(coordinator, index, COUNT) for index in range(COUNT)]
    stores = [LedStore(Folder(tmp_path, pytest.fail)) for _ in sides]

    def work(index: int, function: Callable[[LedStore], Any]) -> Any:
        own.rounds = sides[index]
        try:
            return function(stores[index])
        except Exception as error:
            return error

    with ThreadPoolExecutor(COUNT) as pool:
        yield lambda function: list(pool.map(work, range(COUNT), [function] * COUNT))


def test_the_first_process_writes_and_all_read(
    in_both: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    writers = []
    write = LedStore._write_arrays

    def noted(self: LedStore, *arguments: Any) -> None:
        writers.append(processes.leads())
        write(self, *arguments)

    monkeypatch.setattr(LedStore, "_write_arrays", noted)
    in_both(lambda store: store.keep_partial("f", STATE, PROGRESS))
    assert writers == [True]
    assert in_both(lambda store: store.partial_step("f")) == [7, 7]
    for state, progress in in_both(lambda store: store.partial("f", STATE)):
        np.testing.assert_array_equal(state["a"], STATE["a"])
        assert progress == PROGRESS
    in_both(lambda store: store.drop_partial("f"))
    assert in_both(lambda store: store.partial_step("f")) == [0, 0]


def test_what_is_wrong_in_the_first_process_is_raised_in_all(
    in_both: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(Folder, "write_json", full)
    errors = in_both(lambda store: store.keep_answers("k", {"?": "!"}))
    assert [(type(error), str(error)) for error in errors] == [
        (StorageError, "the disk is full")
    ] * COUNT
    assert in_both(lambda store: store.answers("k")) == [{}, {}]  # they are in step


def test_what_the_first_process_does_alone_waits_for_no_other(
    in_both: Callable[..., list[Any]],
) -> None:
    in_both(lambda store: store.keep_partial("f", STATE, PROGRESS))

    def alone(store: LedStore) -> Any:
        return processes.first("done", lambda: [store.partial_step("f"), store.answers("k")])

    assert in_both(alone) == [[7, {}], [7, {}]]

    def in_turn(store: LedStore) -> Any:
        return processes.in_turn("read", lambda: [store.answers("k"), store.partial_step("f")])

    assert in_both(in_turn) == [[{}, 7], [{}, 7]]
    assert in_both(lambda store: store.partial_step("f")) == [7, 7]
