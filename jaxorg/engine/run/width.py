"""Chooses how many runs a device trains side by side."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax.sharding import Mesh

from jaxorg.distributed import processes
from jaxorg.distributed.runtime import out_of_memory
from jaxorg.engine.cohort import Trainer
from jaxorg.engine.mesh import device_memory, run_memory
from jaxorg.engine.run.aot import bytes_of
from jaxorg.planning.signature import Signature

ROOM = 0.8  # of a device's memory may go to a training program; the rest is for what lies beside it


def auto_width(signature: Signature, mesh: Mesh, runs: int) -> int:
    """The width for `runs` runs of a program.

    On a CPU it is 1: the working set of one run fills a core's cache, and wider programs were
    slower at every size measured (docs/performance.md). On an accelerator it is all of them, or as
    many as the compiler says have room: a further run lengthens a step by less than its own takes,
    and to compile several widths takes longer than most phases do.
    """
    own = mesh.local_devices
    if own[0].platform == "cpu":
        return 1
    room = int(ROOM * processes.first("memory", lambda: device_memory(own[0], len(own))))
    most = max(1, -(-runs // mesh.shape["run"]))
    return fitting(lambda width: _needed(Trainer(signature, mesh, width)), most, room)


def most_lanes(mesh: Mesh, width: int | None, needed: int) -> int:
    """The most runs that are trained side by side.

    Args:
        mesh: where they are trained.
        width: runs a device; None where `auto_width` chooses.
        needed: bytes that each run takes at least.
    """
    if width is None:
        on_cpu = mesh.local_devices[0].platform == "cpu"
        width = 1 if on_cpu else max(1, run_memory(mesh) // needed)
    return int(mesh.shape["run"]) * width


def fitting(needed: Callable[[int], int | None], most: int, room: int) -> int:
    """The largest width up to `most` that fits, with which groups are of one size.

    Args:
        needed: bytes a device that a width needs, None where that is too much to tell.
        most: runs that share a device, if memory allows.
        room: bytes that a device has.
    """
    width = most
    while width > 1:
        found = needed(width)
        if found is not None and found <= room:
            break
        fits = width // 2 if found is None else min(width * room // found, width - 1)
        groups = -(-most // max(1, fits))
        width = -(-most // groups)
    return width


def _needed(trainer: Trainer) -> int | None:
    """Bytes a device that training takes, None where the compiler finds no room. What is compiled
    here is kept for training."""
    try:
        found = bytes_of(trainer.lowered().compile())
    except jax.errors.JaxRuntimeError as error:
        if not out_of_memory(error):
            raise
        found = None
    return processes.first("needed", lambda: found)
