"""Lists what a sweep can be made of: organisms, treatments, evaluators, and so on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jaxorg import evaluators, optimizers, organisms, scorers, treatments
from jaxorg.discovery import Offer, Pieces
from jaxorg.engine.mesh import SLICES
from jaxorg.escape_controls import escape_controls
from jaxorg.llama.names import FETCHED, MODELS
from jaxorg.sweepfile import builtin

Lines = Mapping[str, str]


def show(what: str) -> None:
    """Print one of the lists in `LINES`, with a line each."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, about in LINES[what]().items():
        table.add_row(Text(escape_controls(name)), Text(escape_controls(about)))
    Console(soft_wrap=False).print(table)


def _own(pieces: Pieces[Any]) -> Lines:
    """What the modules of jaxorg's own pieces say of themselves."""
    modules = {
        name: piece.__module__ if isinstance(piece, type) else f"{pieces.package}.{name}"
        for name, piece in pieces.builtin.items()
    }
    return {name: _first(sys.modules[module].__doc__) for name, module in modules.items()}


def _pieces(pieces: Pieces[Any]) -> Lines:
    """All pieces of a sort; of what other packages offer, which do, and why it cannot be used."""
    offered = {
        name: f"({offer.origin}) {offer.trouble or _of_offer(offer)}"
        for name, offer in pieces.offers.items()
    }
    return {**_own(pieces), **offered}


def _of_offer(offer: Offer[Any]) -> str:
    """What an offered class, or else the module that it comes from, says of itself."""
    own = vars(offer.piece).get("__doc__") if isinstance(offer.piece, type) else None
    return _first(own or sys.modules[offer.module].__doc__)


def _first(text: str | None) -> str:
    """A docstring's first paragraph."""
    return " ".join((text or "").partition("\n\n")[0].split())


def _sweeps() -> Lines:
    return {name: builtin.question(path) for name, path in builtin.sweeps().items()}


def _models() -> Lines:
    names = sorted(path.name for path in MODELS.iterdir() if path.is_dir())
    builtin = {
        name: f"built in, the same of seed {seed}" if seed else f"built in, a toy of {size} weights"
        for name in names
        for _, size, seed in [(name + "--").split("-")[:3]]
    }
    fetched = {name: f"{model.about}; by `{model.command}`" for name, model in FETCHED.items()}
    elsewhere = {
        "FOLDER": "a Llama, Mistral, Qwen2 or Qwen3 as Transformers saves it",
        "FILE.gguf": "one as llama.cpp has it",
        "NAME/MODEL": "one of the Hugging Face hub, with @REVISION for a revision",
    }
    return {**builtin, **fetched, **elsewhere}


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
    "organisms": lambda: _pieces(organisms.PIECES),
    "treatments": lambda: _pieces(treatments.PIECES),
    "scorers": lambda: _pieces(scorers.PIECES),
    "evaluators": lambda: _pieces(evaluators.EVALUATORS),
    "optimizers": lambda: _pieces(optimizers.FAMILIES),
    "models": _models,
    "sweeps": _sweeps,
    "meshes": _meshes,
}
