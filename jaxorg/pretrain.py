"""The command `python -m jaxorg.pretrain FOLDER`: train the built-in base model from scratch.

The recipe is sweeps/pretrain.yaml. Tokenizer, weights and a card land in FOLDER, in the Hugging
Face layout; the sweep's tables and what a restart needs land in FOLDER/training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jaxorg.cli import common


def pretrain(
    folder: Annotated[
        Path, typer.Argument(parser=common.folder_name, help="Where the model goes.")
    ],
    size: Annotated[str, typer.Option(help="smoke or laptop.")] = "laptop",
    mesh: Annotated[str | None, typer.Option(help="As for sweep.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="path=value, in YAML.")] = None,
) -> int:
    """Train jaxorg-1m from scratch; the same command goes on after an interruption."""
    from jaxorg.cli.pretrain import pretrain_base

    return pretrain_base(folder, size, mesh, set_ or [])


if __name__ == "__main__":
    common.run(pretrain)
