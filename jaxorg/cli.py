"""What the doors share: parse a typed function's arguments, turn refusals into one line.

Exit codes: 0 done, 2 the input is wrong and nothing on disk has changed, 130 interrupted.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import typer

from jaxorg.runtime import Refusal
from jaxorg.visible import visible

INTERRUPTED = 130


def run(
    door: Callable[..., int | None], argv: Sequence[str] | None = None, name: str | None = None
) -> NoReturn:
    """Run a door and exit.

    Args:
        door: what to run; its parameters become options, its docstring's first paragraph the help.
        argv: its arguments; None for those of this process.
        name: what the help calls the command; None for how this process was started.
    """
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=(inspect.getdoc(door) or "").partition("\n\n")[0])(door)
    try:
        code = app(args=argv, prog_name=name, standalone_mode=False) or 0
    except typer.TyperException as error:
        refuse(f"{error.format_message().rstrip('.')}; see --help")
    except Refusal as error:
        refuse(str(error))
    if code == INTERRUPTED:
        print("interrupted; the same command without --fresh goes on from here", file=sys.stderr)
    sys.exit(code)


def refuse(message: str) -> NoReturn:
    """Say in one line what is wrong, and exit with code 2."""
    print(f"jaxorg: {visible(' '.join(message.split()))}", file=sys.stderr)
    sys.exit(2)
