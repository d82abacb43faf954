"""Mesh names to JAX meshes with the axes `run`, `fsdp` and `tensor`."""

from __future__ import annotations

import os
import re

import jax
from jax.sharding import AxisType, Mesh

from jaxorg.runtime import Refusal

AXES = ("run", "fsdp", "tensor")
_NAME = re.compile(r"(?P<platform>cpu|gpu|tpu)(-(?P<count>[1-9]\d*))?")


def cpu_devices(name: str | None) -> int | None:
    """How many devices the CPU must be split into for mesh `name`; None for one a core.

    Raises:
        Refusal: no such name.
    """
    platform, count = _parse(name or "cpu")
    return count if platform == "cpu" else None


def is_cpu(name: str | None) -> bool:
    """Whether mesh `name` asks for CPU devices; without a name, what is there decides later."""
    return _parse(name or "cpu")[0] == "cpu"


def make_mesh(name: str | None) -> Mesh:
    """The mesh called `name`: `cpu`, `gpu`, `tpu` or one of these with a device count.

    None takes every device of the default platform. All devices go to the `run` axis.

    Raises:
        Refusal: no such name, or this machine lacks the devices.
    """
    platform, wanted = _parse(name or jax.default_backend())
    try:
        devices = jax.devices(platform)
    except RuntimeError:
        here = jax.default_backend()
        raise Refusal(f"--mesh: {name!r} asked for, but JAX finds only {here} here") from None
    count = wanted or len(devices)
    if count > len(devices):
        raise Refusal(f"--mesh: {name!r} needs {count} devices, but there are {len(devices)}")
    shape = (count, 1, 1)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices[:count])


def device_memory(mesh: Mesh) -> int:
    """Bytes of memory for each device of a mesh; devices of the CPU share its own."""
    device = mesh.devices.flat[0]
    if device.platform == "cpu":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // mesh.size
    return int(device.memory_stats()["bytes_limit"])


def _parse(name: str) -> tuple[str, int | None]:
    """Platform and device count of a mesh's name."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise Refusal(f"--mesh: {name!r} is unknown; use cpu, gpu or tpu, as in cpu-2 or gpu-8")
    return match["platform"], int(match["count"]) if match["count"] else None
