"""Lists what a sweep can be made of: organisms, treatments, evaluators, and so on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxorg import discovery
from jaxorg.engine.mesh import SLICES
from jaxorg.optimizers import FAMILIES
from jaxorg.organisms import ORGANISMS
from jaxorg.sweepfile import builtin
from jaxorg.treatments import TREATMENTS

Lines = Mapping[str, str]


def show(what: str) -> None:
    """Print one of the lists in `LINES`, with a line each."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, about in LINES[what]().items():
        table.add_row(Text(name), Text(about))
    Console(soft_wrap=False).print(table)


def _about(module: ModuleType | None) -> str:
    """What a module says of itself in its first paragraph."""
    return " ".join((inspect.getdoc(module) or "").partition("\n\n")[0].split())


def _kinds(made: Iterable[type[BaseModel]]) -> Lines:
    return {discovery.kind_of(one): _about(inspect.getmodule(one)) for one in made}


def _sweeps() -> Lines:
    return {name: builtin.question(path) for name, path in builtin.sweeps().items()}


def _meshes() -> Lines:
    machines = {
        "cpu, cpu-N": "CPU cores of this machine, one XLA device each; all, or N",
        "gpu, gpu-N": "GPUs of this machine; all, or N",
        "tpu, tpu-N": "TPU devices that this machine sees; all, or N",
        "run=R,fsdp=F,tensor=T": "how many devices along each axis, by itself or after a name",
    }
    slices = {
        name: f"{one.devices} TPU device{'s' * (one.devices > 1)} of {one.memory / 2**30:.1f} GiB"
        for name, one in SLICES.items()
    }
    return machines | slices


LINES: Mapping[str, Callable[[], Lines]] = {
    "organisms": lambda: _kinds(ORGANISMS),
    "treatments": lambda: _kinds(TREATMENTS),
    "evaluators": lambda: {
        name: _about(module)
        for name, module in discovery.modules("jaxorg.evaluators").items()
        if hasattr(module, "measure")
    },
    "optimizers": lambda: {
        name: _about(module)
        for name, module in discovery.modules("jaxorg.optimizers").items()
        if name in FAMILIES
    },
    "sweeps": _sweeps,
    "meshes": _meshes,
}
