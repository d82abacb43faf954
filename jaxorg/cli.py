"""What the doors share: parse a typed function's arguments, turn refusals into one line.

Exit codes: 0 done, 1 some runs failed, 2 the input is wrong and nothing on disk has changed,
130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

import click
import typer

from jaxorg.runtime import Refusal


def run(*doors: Callable[..., int | None], argv: list[str] | None = None) -> NoReturn:
    """Run one door, or several as subcommands named after their functions, and exit."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=len(doors) > 1)
    for door in doors:
        app.command()(door)
    try:
        sys.exit(app(args=argv, standalone_mode=False) or 0)
    except click.ClickException as error:
        _refuse(error.format_message())
    except Refusal as error:
        _refuse(str(error))
    except (KeyboardInterrupt, click.Abort):
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def _refuse(message: str) -> NoReturn:
    line = " ".join(message.split())
    print(f"jaxorg: {line}", file=sys.stderr)
    sys.exit(2)
