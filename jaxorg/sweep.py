"""The door `python -m jaxorg.sweep`: run a sweep file, or print what it would do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaxorg import cli, runtime, spec
from jaxorg.console import Console
from jaxorg.engine.execute import Engine
from jaxorg.engine.inputs import Inputs
from jaxorg.engine.mesh import cpu_devices, is_cpu, make_mesh
from jaxorg.engine.tables import TableWriter
from jaxorg.plan import make_plan
from jaxorg.runtime import Refusal
from jaxorg.store import Store


def sweep(
    name: Annotated[
        str, typer.Argument(metavar="SWEEP", help="A shipped sweep's name, or a YAML file.")
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
        typer.Option(metavar="DIR", help="Folder of results. [default: results/SWEEP-SIZE]"),
    ] = None,
    mesh: Annotated[
        str | None,
        typer.Option(metavar="MESH", help="cpu, gpu, tpu, cpu-2 … [default: all there is]"),
    ] = None,
    width: Annotated[
        str, typer.Option(metavar="N", help="Runs a device trains side by side, or auto.")
    ] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget what is done and start over.")
    ] = False,
) -> None:
    """Train, treat and measure every run of a sweep. Runs that are done are not run again."""
    plan = make_plan(spec.load(name, size, set_ or []))
    runs_a_device = _width(width)
    cores = cpu_devices(mesh) or runtime.cores()
    inputs = Inputs(plan)
    inputs.check()
    console = Console(plan)
    if dry_run:
        console.print_plan(cores if is_cpu(mesh) else None)
        return
    runtime.start(cores)
    devices = make_mesh(mesh)
    store = Store(out or Path("results") / f"{plan.spec.sweep.name}-{size}")
    engine = Engine(plan, inputs, store, devices, runs_a_device, console)
    store.open()
    device = f"{devices.size} x {devices.devices.flat[0].device_kind}"
    tables = TableWriter(plan, store, device)
    if fresh:
        store.clear()
        tables.drop_all()
    tables.drop_strangers()
    with console.progress(store, device):
        for cohort in plan.cohorts:
            engine.run(cohort)
            tables.write(cohort)
    store.drop_partials()
    console.print_results(store.folder)


def _width(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise Refusal(f"--width: {text!r} is neither auto nor a positive number")
    return int(text)


if __name__ == "__main__":
    cli.run(sweep)
