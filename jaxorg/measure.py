"""The command `python -m jaxorg.measure DIR`: measure what is trained in another way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaxorg.cli import common


def measure(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a sweep's results.")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="PATH=VALUE", help="Change what is measured; may be repeated."
        ),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The evaluator that measures. [default: all]"),
    ] = None,
    mesh: Annotated[
        str | None,
        typer.Option(metavar="MESH", help="As for a sweep. [default: all there is]"),
    ] = None,
    width: Annotated[
        str, typer.Option(metavar="N", help="Runs a device measures side by side, or auto.")
    ] = "auto",
) -> int:
    """Measure what a sweep has trained, as far as that is missing; train nothing.

    Returns:
        The exit code: 0, 1 if runs failed, 75 or 130 if a signal stopped it.
    """
    from jaxorg.cli.measure import measure_folder

    return measure_folder(folder, set_ or (), only, mesh, width)


if __name__ == "__main__":
    common.run(measure)
