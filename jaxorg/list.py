"""The command `python -m jaxorg.list WHAT`: what there is to sweep, with a line each."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from jaxorg.cli import common


class What(StrEnum):
    """What can be listed."""

    organisms = "organisms"
    treatments = "treatments"
    scorers = "scorers"
    evaluators = "evaluators"
    optimizers = "optimizers"
    models = "models"
    sweeps = "sweeps"
    meshes = "meshes"


def list(what: Annotated[What, typer.Argument(metavar="WHAT", show_default=False)]) -> None:
    """List organisms, treatments, scorers, evaluators, optimizers, models, sweeps or meshes, with a
    line each."""
    from jaxorg.cli.pieces import show

    show(what.value)


if __name__ == "__main__":
    common.run(list)
