"""Mesh names to devices: which machines, and how their devices share the axes of a program.

A mesh has the axes `run` (outermost, no collective crosses it), `fsdp` (one run's weights and rows
are split) and `tensor` (its heads, feed-forward width and vocabulary are split).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from jaxorg.distributed import processes, runtime
from jaxorg.errors import Refusal

AXES = ("run", "fsdp", "tensor")
ROOM = 0.6  # of a device's memory may go to what one run holds; the rest is for its work
_PLATFORM = re.compile(r"(?P<platform>cpu|gpu|tpu)(-(?P<count>[1-9]\d{0,5}))?")


@dataclass(frozen=True)
class Slice:
    """A TPU slice as its compiler names it. One JAX device a chip."""

    topology: str
    hosts: tuple[int, int, int]  # chips of one host
    memory: int  # usable bytes a device
    peak: float  # dense bf16 FLOPs a second and device
    bandwidth: float  # bytes a second between a device and its memory

    @property
    def devices(self) -> int:
        """How many there are."""
        shape = self.topology.partition(":")[2]
        return int(np.prod([int(size) for size in shape.split("x")]))


def _slices(
    name: str, shapes: Mapping[int, str], gibibytes: float, peak: float, bandwidth: float
) -> dict[str, Slice]:
    """The slices of one generation. v4 and v5p names count cores, of which a chip has two."""
    generation = {"v5p": "v5"}.get(name, name)
    found = {}
    for number, shape in shapes.items():
        hosts = (1, 1, 1) if number == 1 else (2, 2, 1)
        topology = f"{generation}:{shape}"
        memory = int(gibibytes * 2**30)
        found[f"{name}-{number}"] = Slice(topology, hosts, memory, peak, bandwidth)
    return found


_CUBES = {
    8: "2x2x1",
    16: "2x2x2",
    32: "2x2x4",
    64: "2x4x4",
    128: "4x4x4",
    256: "4x4x8",
    512: "4x8x8",
}
_SQUARES = {
    1: "1x1",
    4: "2x2",
    8: "2x4",
    16: "4x4",
    32: "4x8",
    64: "8x8",
    128: "8x16",
    256: "16x16",
}

# Usable memory as the TPU compiler states it ("available HBM"), 0.25 to 1.25 GiB less than a chip
# has; peak and bandwidth as Google Cloud's pages of the generations state them.
SLICES: Mapping[str, Slice] = {
    **_slices("v4", _CUBES, 30.75, 275e12, 1.2e12),
    **_slices("v5p", _CUBES, 95.74, 459e12, 2.765e12),
    **_slices("v5e", _SQUARES, 15.75, 197e12, 0.82e12),
    **_slices("v6e", _SQUARES, 31.25, 918e12, 1.64e12),
}
GENERATIONS = list(dict.fromkeys(name.partition("-")[0] for name in SLICES))


def generation(name: str) -> list[str]:
    """The slices of a generation, as of v5p, the smallest first."""
    return [each for each in SLICES if each.partition("-")[0] == name]


@dataclass(frozen=True)
class MeshSpec:
    """What a `--mesh` asks for; None where the machine or a rule decides."""

    name: str | None  # cpu, gpu, tpu or a slice's name
    count: int | None
    axes: Mapping[str, int]  # those that were given
    text: str | None = None  # what was written

    @property
    def platform(self) -> str | None:
        """The JAX platform; None for this machine's default one."""
        return "tpu" if self.name in SLICES else self.name


def parse(text: str | None) -> MeshSpec:
    """Read a mesh's name: `cpu`, `gpu-8`, `v4-64`, `run=4,fsdp=2,tensor=1`, or both with a comma.

    Raises:
        Refusal: there is no such mesh.
    """
    name, count, axes = None, None, {}
    for part in (text or "").split(",") if text else []:
        axis, equals, size = part.partition("=")
        if equals and axis in AXES and axis not in axes and re.fullmatch(r"[1-9]\d{0,5}", size):
            axes[axis] = int(size)
        elif part in SLICES and name is None:
            name, count = part, SLICES[part].devices
        elif (match := _PLATFORM.fullmatch(part)) and name is None:
            name, count = match["platform"], int(match["count"]) if match["count"] else None
        else:
            raise Refusal(
                f"--mesh: {text!r} is unknown; use cpu, gpu, tpu, as in cpu-2 or gpu-8, a slice "
                f"({', '.join(SLICES)}), axes as in run=4,fsdp=2,tensor=1, or both"
            )
    return MeshSpec(name, count, axes, text)


def cpu_devices(spec: MeshSpec) -> int | None:
    """How many devices the CPU must be split into for a mesh; None for one a core."""
    if spec.platform not in (None, "cpu"):
        return None
    asked = int(np.prod(list(spec.axes.values()))) if spec.axes else None
    return spec.count or asked


def own_cpu_devices(spec: MeshSpec, runs: int) -> int:
    """How many of a mesh's CPU devices this process makes. Where nothing says so, a single process
    makes no more than there are runs to train side by side: these then have all cores.

    Args:
        spec: what was asked for.
        runs: the most that there are.

    Raises:
        Refusal: the processes cannot share the devices equally.
    """
    asked, sharing = cpu_devices(spec), processes.count()
    if asked is None:
        return min(runtime.cores(), runs) if sharing == 1 else runtime.cores()
    if asked % sharing:
        raise Refusal(
            f"--mesh: {spec.text!r} has {asked} devices, which {sharing} processes cannot share "
            f"equally; give a multiple"
        )
    return asked // sharing


def layout(
    spec: MeshSpec, devices: int, memory: int, needed: int, rows: int = 0, least: int = 1
) -> dict[str, int]:
    """The size of each axis.

    Where the mesh's name says nothing, one run takes the smallest power of two of devices that
    its weights, gradients and optimizer state leave room on: as many on `fsdp` as its rows can be
    split over, the others on `tensor`; `run` takes the rest.

    Args:
        spec: what was asked for.
        devices: how many there are.
        memory: bytes of each.
        needed: bytes that one run holds.
        rows: what the rows of each batch are a multiple of; 0 where any number will do.
        least: devices that one run takes at least, a power of two.

    Raises:
        Refusal: axes and devices do not fit together.
    """
    axes = dict(spec.axes)
    if "fsdp" not in axes and "run" not in axes:
        tensor = axes.get("tensor", 1)
        fsdp = max(1, least // tensor)
        while needed > ROOM * memory * fsdp * tensor and devices % (2 * fsdp * tensor) == 0:
            fsdp *= 2
        axes["fsdp"] = fsdp if "tensor" in axes else math.gcd(fsdp, rows)
        axes["tensor"] = fsdp * tensor // axes["fsdp"]
    given = int(np.prod(list(axes.values())))
    missing = [axis for axis in AXES if axis not in axes]
    for axis in missing:
        axes[axis] = 1
    if missing and devices % given == 0:
        axes[missing[0]] = devices // given
    if int(np.prod(list(axes.values()))) != devices:
        asked = ",".join(f"{axis}={size}" for axis, size in spec.axes.items())
        raise Refusal(
            f"--mesh: {asked} does not fill {devices} devices; give axes whose product that is"
        )
    return {axis: axes[axis] for axis in AXES}


def make_mesh(spec: MeshSpec, needed: int = 0, rows: int = 0) -> Mesh:
    """The mesh that `spec` asks for on this machine; `needed` and `rows` as for `layout`.

    Raises:
        Refusal: this machine lacks the devices.
    """
    platform = spec.platform or jax.default_backend()
    try:
        devices = jax.devices(platform)
    except RuntimeError:
        here = jax.default_backend()
        raise Refusal(f"--mesh: {spec.text!r} asked for, but JAX finds only {here} here") from None
    count = spec.count or (cpu_devices(spec) if platform == "cpu" else None) or len(devices)
    if count > len(devices):
        raise Refusal(f"--mesh: {spec.text!r} needs {count} devices, but there are {len(devices)}")
    if processes.count() > 1 and count < len(devices):
        raise Refusal(
            f"--mesh: {spec.text!r} has {count} devices, but the processes have {len(devices)}; "
            f"several processes use all of them"
        )
    devices = devices[:count]
    own, share = jax.local_devices(backend=platform)[0], count // processes.count()
    memory = processes.first("memory", lambda: device_memory(own, share))
    axes = layout(spec, count, memory, needed, rows)
    types = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(tuple(axes.values()), AXES, axis_types=types, devices=devices)


def device_memory(device: jax.Device, count: int) -> int:
    """Bytes of memory of one of this process's `count` devices; those of the CPU share its own."""
    if device.platform == "cpu":
        return _host_memory() // count
    return int(device.memory_stats()["bytes_limit"])


def run_memory(mesh: Mesh) -> int:
    """Bytes of memory of all devices that one run is spread over."""
    of_one_run: int = mesh.shape["fsdp"] * mesh.shape["tensor"]
    own = mesh.local_devices
    return of_one_run * device_memory(own[0], len(own))


def described(mesh: Mesh) -> str:
    """Devices and axes for people: `32 x TPU v4 (run=8, fsdp=4)`."""
    return _told(mesh.size, mesh.devices.flat[0].device_kind, mesh.shape)


def foreseen(spec: MeshSpec, needed: int, runs: int, rows: int = 0) -> str | None:
    """The same of the mesh that `make_mesh` would make, as far as that is known without its
    devices: of a slice and of CPUs.

    Args:
        spec: what was asked for.
        needed: bytes that one run holds.
        runs: as for `own_cpu_devices`.
        rows: as for `layout`.

    Raises:
        Refusal: as from `layout`.
    """
    if place := SLICES.get(spec.name or ""):
        axes = layout(spec, place.devices, place.memory, needed, rows)
        return f"{spec.name}, {_told(place.devices, 'chip', axes)}"
    if spec.platform not in (None, "cpu"):
        return None
    count = own_cpu_devices(spec, runs)
    return _told(count, "cpu", layout(spec, count, _host_memory() // count, needed, rows))


def _told(count: int, kind: str, shape: Mapping[str, int]) -> str:
    axes = ", ".join(f"{axis}={size}" for axis, size in shape.items() if size > 1)
    return f"{count} x {kind}" + (f" ({axes})" if axes else "")


def _host_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
