"""What `--status DIR` prints: how a sweep stands, who works on it, and how long that will take."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import rich.console
from rich.markup import escape
from rich.table import Table

from jaxorg.escape_controls import escape_controls
from jaxorg.planning import manifest
from jaxorg.planning.manifest import Manifest, Standing
from jaxorg.storage.folder import Folder, Json
from jaxorg.storage.lock import Lock

STATES = ("done", "diverged", "failed", "training", "missing")
SHOWN_ERRORS = 10


def show(path: Path) -> None:
    """Print how the sweep in a results folder stands. Nothing is changed.

    Raises:
        Refusal: there is none.
    """
    known = manifest.of_results(path, "--status")
    standing = manifest.standing(known, path)
    out = rich.console.Console(highlight=False)
    what = f"{known.sweep} ({known.size}) in {path}: {len(known.runs)} runs"
    out.print(escape(escape_controls(what)), soft_wrap=True)
    out.print(_table(standing))
    holder = Lock(Folder(path, lambda _: None)).holder()
    out.print(escape(escape_controls(_work(known, standing, holder))), soft_wrap=True)
    for fingerprint, error in list(standing.errors.items())[:SHOWN_ERRORS]:
        kind = known.phases[fingerprint][0]
        out.print(escape_controls(f"failed: {kind} {fingerprint}: {escape(error)}"), soft_wrap=True)
    if (more := len(standing.errors) - SHOWN_ERRORS) > 0:
        out.print(f"and {more} more; the runs table has all")


def _table(standing: Standing) -> Table:
    table = Table("", *STATES)
    for column in table.columns[1:]:
        column.justify = "right"
    rows: dict[str, Counter[str]] = {"runs": standing.runs, **standing.phases}
    for name, counts in rows.items():
        table.add_row(name, *(str(counts[state]) for state in STATES))
    return table


def _work(known: Manifest, standing: Standing, holder: Json | None) -> str:
    """Who works on the sweep, and how much is left."""
    if holder is not None:
        who = f"process {holder.get('process', '?')} on {holder.get('host', '?')} is running it"
        seconds = holder.get("seconds_left")
        left = "the time left is not known yet" if seconds is None else _lasting(seconds)
        return f"{who} (last heard from at {holder.get('time', '?')}); {left}"
    if not standing.tokens_left:
        return "nothing is left to train"
    if not standing.tokens_done:
        return "it is not running, and nothing is trained yet"
    share = standing.tokens_left / standing.tokens_done
    chip_seconds = standing.chip_seconds * share
    return f"it is not running; {_lasting(chip_seconds)} of one device's time"


def _lasting(seconds: float) -> str:
    amount = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    return f"about {amount} left"
