"""The command `python -m jaxorg.fit`: whether a sweep fits a TPU slice, as the TPU's compiler says.

No TPU is needed, and no weights.

Exit codes: 0 all fits, 1 something does not, 2 the input is wrong.
"""

from __future__ import annotations

from typing import Annotated

import typer

from jaxorg.cli import common


def fit(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="As for sweep.")],
    mesh: Annotated[
        str,
        typer.Option(
            metavar="MESH",
            help="A TPU slice, as in v4-64 or v4-64,fsdp=4; a generation, as in v5p, for its "
            "smallest slice that holds the sweep.",
        ),
    ],
    size: Annotated[str, typer.Option(metavar="SIZE", help="One of the file's.")] = "llama",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help="Change a key; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Compile every program of a sweep for a TPU slice that need not be there."""
    from jaxorg.cli.fit import fit_sweep

    return fit_sweep(name, mesh, size, set_ or [], as_json)


if __name__ == "__main__":
    common.run(fit)
