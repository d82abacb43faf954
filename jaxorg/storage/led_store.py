"""The store of several processes, which the first of them leads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from jaxorg.distributed.processes import first, in_turn
from jaxorg.storage.store import Store

P = ParamSpec("P")
T = TypeVar("T")
Method = Callable[Concatenate[Store, P], T]


def _led(call: Callable[[str, Callable[[], T]], T], method: Method[P, T]) -> Method[P, T]:
    """A method that all processes call together, by way of `call`."""

    def led(self: Store, /, *args: P.args, **options: P.kwargs) -> T:
        return call(method.__name__, lambda: method(self, *args, **options))

    return led


class LedStore(Store):
    """A store of which all processes call the methods named here, together: what is wrong in the
    first process is raised in all of them.

    What others there are is for the first process alone, within what `processes.first` has it do;
    but each process has readers of weights of its own."""

    tokens = _led(first, Store.tokens)
    partial_step = _led(first, Store.partial_step)
    partial = _led(in_turn, Store.partial)
    keep_partial = _led(first, Store.keep_partial)
    drop_partial = _led(first, Store.drop_partial)
    round = _led(in_turn, Store.round)
    keep_round = _led(first, Store.keep_round)
    answers = _led(in_turn, Store.answers)
    keep_answers = _led(first, Store.keep_answers)
    drop_answers = _led(first, Store.drop_answers)
    save_snapshot = _led(first, Store.save_snapshot)
