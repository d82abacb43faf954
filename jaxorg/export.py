"""The command `python -m jaxorg.export`: a phase's weights as a folder for Transformers or PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from jaxorg.cli import common
from jaxorg.sweepfile.labels import Kind

Form = Literal["hf", "peft"]


def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A sweep's results folder.")],
    run_id: Annotated[
        str, typer.Argument(metavar="RUN_ID", help="As in the runs table; its beginning will do.")
    ],
    path: Annotated[
        Path, typer.Argument(metavar="PATH", parser=common.folder_name, help="A new folder.")
    ],
    phase: Annotated[
        Kind | None, typer.Option(help="Whose weights to take. [default: the run's last]")
    ] = None,
    to: Annotated[
        Form, typer.Option(help="hf: the whole model, merged. peft: the phase's adapters.")
    ] = "hf",
) -> None:
    """Write a phase of a run as a Hugging Face folder, or its adapters as one for PEFT."""
    from jaxorg.cli.export import export_phase

    export_phase(folder, run_id, path, phase, to)


if __name__ == "__main__":
    common.run(export)
