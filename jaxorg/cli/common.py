"""What the commands share: parse a typed function's arguments, turn refusals into one line.

Exit codes: 0 done, 1 something failed (runs, or the disk), 2 the input is wrong and nothing on
disk has changed, 75 preempted by SIGTERM, 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import typer

from jaxorg.cli import streams
from jaxorg.distributed.interrupt import INTERRUPTED, PREEMPTED, Interrupted, Leaving
from jaxorg.errors import Damaged, Parted, Refusal, StorageError
from jaxorg.escape_controls import escape_controls

LONGEST = 1000  # characters of a line; what a file or a library says may be longer


def run(
    command: Callable[..., int | None], argv: Sequence[str] | None = None, name: str | None = None
) -> NoReturn:
    """Run a command and exit.

    Args:
        command: what to run; its parameters become options, the first paragraph of its
            docstring the help.
        argv: its arguments; None for those of this process.
        name: what the help calls the command; None for how this process was started.
    """
    streams.harden()
    try:
        os.getcwd()
    except OSError as error:
        refuse(f"the current folder cannot be used ({error.strerror}); go to another one")
    leave(_opened(command, argv, name))


def leave(code: int) -> NoReturn:
    """Exit with a code, or with 1 where that would be 0 and not all output could be written."""
    if problem := streams.unwritten():
        say(f"not all output could be written ({problem}); the work itself is done")
        code = code or 1
    sys.exit(code)


def say(message: str) -> None:
    """Say something in one line, beside what is printed."""
    line = escape_controls(" ".join(message.split()))
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
    print(f"jaxorg: {line}", file=sys.stderr)


def refuse(message: str) -> NoReturn:
    """Say in one line what is wrong, and exit with code 2."""
    say(message)
    sys.exit(2)


def folder_name(text: str) -> Path:
    """An argument or option that names a folder to write into: an empty one would be this one."""
    if not text:
        raise typer.BadParameter("'' names no folder; give one")
    return Path(text)


def _opened(
    command: Callable[..., int | None], argv: Sequence[str] | None, name: str | None
) -> int:
    """The exit code of a command; where the command itself does not come to one, why is said."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(help=(inspect.getdoc(command) or "").partition("\n\n")[0])(command)
    takes_set = "set_" in inspect.signature(command).parameters
    try:
        with Leaving():
            code: int = app(args=argv, prog_name=name, standalone_mode=False) or 0
    except typer.TyperException as error:
        key = str(getattr(error, "option_name", "")).lstrip("-").replace("-", "_")
        sets = f"a key of a sweep file is set by --set {key}=VALUE; " if key and takes_set else ""
        refuse(f"{error.format_message().rstrip('.')}; {sets}see --help")
    except Refusal as error:
        refuse(str(error))
    except (Damaged, Parted, StorageError) as error:
        say(str(error))
        return 1
    except OSError as error:  # no bug of ours: a disk or the system does not do its part
        place = f"{error.filename}: " if error.filename else ""
        say(f"{place}{error.strerror or error}; fix that and run the same command again")
        return 1
    except Interrupted as signal:
        say("stopped before it was done")
        return signal.exit_code
    if code in (PREEMPTED, INTERRUPTED):
        say("stopped; run the same command without --fresh to resume")
    return code
