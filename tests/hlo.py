"""Reads from a compiled program which devices its collectives connect."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")
_OPERATION = re.compile(rf" ({'|'.join(COLLECTIVES)})(?:-start)?\(")
_LISTS = re.compile(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]*\})\}")
_GRID = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"  # devices counted off in a grid, then its axes swapped
_IOTA = re.compile(rf"replica_groups=\[([\d,]+)\]<={_GRID}")
_MESH = re.compile(rf"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\({_GRID}\))? \{{([^}}]*)\}}")


def groups(text: str) -> Iterator[tuple[str, list[int]]]:
    """Every group of devices that exchange something, and by which collective.

    Raises:
        ValueError: a collective's groups are written in an unknown way.
    """
    for line in text.splitlines():
        if found := _OPERATION.search(line):
            for devices in _groups(line):
                yield found[1], devices


def _groups(line: str) -> list[list[int]]:
    if found := _LISTS.search(line):
        return [list(map(int, part.split(","))) for part in re.findall(r"\{([\d,]+)\}", found[1])]
    if found := _IOTA.search(line):
        return _grid(found[2], found[3]).reshape(_numbers(found[1])).tolist()
    if found := _MESH.search(line):
        return _of_mesh(found)
    raise ValueError(f"unknown groups: {line[line.find('replica_groups') :][:200]}")


def _of_mesh(found: re.Match[str]) -> list[list[int]]:
    """Groups along some named axes of a grid of devices."""
    sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
    shape, names = list(sizes.values()), list(sizes)
    devices = _grid(found[2] or str(np.prod(shape)), found[3]).reshape(shape)
    if re.search(r"'\w+':", found[4]):  # a part of an axis
        raise ValueError(f"unknown groups: {found[0]}")
    along = [names.index(name) for name in re.findall(r"'(\w+)'", found[4])]
    others = [axis for axis in range(len(names)) if axis not in along]
    width = int(np.prod([shape[axis] for axis in along]))
    return devices.transpose([*others, *along]).reshape(-1, width).tolist()


def _grid(shape: str, order: str | None) -> np.ndarray:
    grid = np.arange(np.prod(_numbers(shape))).reshape(_numbers(shape))
    return (grid.transpose(_numbers(order)) if order else grid).ravel()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))
