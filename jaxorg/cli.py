"""What the doors share: parse a typed function's arguments, turn refusals into one line.

Exit codes: 0 done, 1 something failed (runs, or the disk), 2 the input is wrong and nothing on
disk has changed, 75 preempted by SIGTERM, 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import inspect
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import typer

from jaxorg.folder import Damaged, StorageError
from jaxorg.interrupt import INTERRUPTED, PREEMPTED
from jaxorg.processes import Parted
from jaxorg.runtime import Refusal
from jaxorg.visible import visible

LONGEST = 1000  # characters of a refusal; what a file or a library says may be longer


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
    takes_set = "set_" in inspect.signature(door).parameters
    try:
        code = app(args=argv, prog_name=name, standalone_mode=False) or 0
    except typer.TyperException as error:
        key = str(getattr(error, "option_name", "")).lstrip("-").replace("-", "_")
        sets = f"a key of a sweep file is set by --set {key}=VALUE; " if key and takes_set else ""
        refuse(f"{error.format_message().rstrip('.')}; {sets}see --help")
    except Refusal as error:
        refuse(str(error))
    except (Damaged, Parted, StorageError) as error:
        say(str(error))
        sys.exit(1)
    if code in (PREEMPTED, INTERRUPTED):
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # once more ends it without a traceback
        say("stopped; the same command without --fresh goes on from here")
    sys.exit(code)


def folder_name(text: str) -> Path:
    """An argument or option that names a folder to write into: an empty one would be this one."""
    if not text:
        raise typer.BadParameter("'' names no folder; give one")
    return Path(text)


def say(message: str) -> None:
    """Say something in one line, beside what is printed."""
    print(f"jaxorg: {' '.join(message.split())}", file=sys.stderr)


def refuse(message: str) -> NoReturn:
    """Say in one line what is wrong, and exit with code 2."""
    line = visible(" ".join(message.split()))
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
    print(f"jaxorg: {line}", file=sys.stderr)
    sys.exit(2)
