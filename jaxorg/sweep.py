"""The command `python -m jaxorg.sweep`: run a sweep, say what it would do, or how it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaxorg.cli import common
from jaxorg.notebook import make_callable
from jaxorg.storage.layout import Keep


def sweep(
    name: Annotated[
        str, typer.Argument(metavar="SWEEP", help="A built-in sweep's name, or a YAML file.")
    ] = "quickstart",
    size: Annotated[
        str, typer.Option(metavar="SIZE", help="One of the file's: smoke, laptop, llama.")
    ] = "laptop",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a key; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=common.folder_name,
            help="Folder of results. [default: results/SWEEP-SIZE]",
        ),
    ] = None,
    mesh: Annotated[
        str | None,
        typer.Option(
            metavar="MESH", help="cpu-2, gpu, v4-64, run=4,fsdp=2 … [default: all there is]"
        ),
    ] = None,
    width: Annotated[
        str, typer.Option(metavar="N", help="Runs a device trains side by side, or auto.")
    ] = "auto",
    keep: Annotated[
        Keep,
        typer.Option(
            help="Weights that stay on disk: none, those that phases end with, or those at every "
            "measured step."
        ),
    ] = "final",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    show: Annotated[
        Path | None,
        typer.Option("--status", metavar="DIR", help="Print how the sweep in DIR stands and stop."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try runs again that failed.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget what is done and start over.")
    ] = False,
    distributed: Annotated[
        bool,
        typer.Option(
            "--distributed", help="Join the other processes of the cluster that JAX finds here."
        ),
    ] = False,
    profile: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            parser=common.folder_name,
            help="Write traces of some training calls and one measurement into a new folder.",
        ),
    ] = None,
) -> int:
    """Train, treat and measure every run of a sweep. Runs that are done are not run again.

    Returns:
        The exit code: 0, 1 if runs failed, 75 or 130 if a signal stopped it.
    """
    if show is not None:
        from jaxorg.cli import status

        status.show(show)
        return 0
    from jaxorg.cli.sweep import SweepOptions, run_sweep

    options = SweepOptions(
        size, set_ or (), out, mesh, width, keep, dry_run, retry_failed, fresh, distributed, profile
    )
    return run_sweep(name, options)


if __name__ == "__main__":
    common.run(sweep)
else:
    make_callable(__name__)
