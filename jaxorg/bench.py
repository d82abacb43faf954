"""The command `python -m jaxorg.bench`: how fast the stacked engine trains on this CPU, measured
against eager PyTorch with Hugging Face Transformers.

Both train the same models on the same tokens: the shape of the built-in model, all weights, fp32,
AdamW, a loss on every token but the first. jaxorg stacks the runs; PyTorch, with all its threads,
trains one after another. The rounds alternate in one process, so that what disturbs the machine
disturbs both.

With `--packing SWEEP` it measures what packing gains: a sweep's first phase that is trained, with
its own data, a conversation a row against rows that are packed.
"""

from __future__ import annotations

from typing import Annotated

import typer

from jaxorg.cli import common


def bench(
    runs: Annotated[int, typer.Option(min=1, help="Models to train.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Steps a model.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds of each side.")] = 5,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    packing: Annotated[
        str | None,
        typer.Option(metavar="SWEEP", help="Measure instead what packing gains in a sweep."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a key of that sweep."),
    ] = None,
) -> None:
    """Measure training throughput against eager PyTorch with Transformers, on the CPU."""
    from jaxorg.cli.bench import run_bench

    run_bench(runs, steps, rounds, json_, packing, set_ or [])


if __name__ == "__main__":
    common.run(bench)
