"""The command `python -m jaxorg.report DIR`: one self-contained page from a folder of parquet."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from jaxorg.cli.common import run
from jaxorg.errors import Refusal, install

PAGE = "report.html"


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the folder of a sweep's results")],
) -> None:
    """Write DIR/report.html from the parquet tables in DIR, and nothing else.

    Raises Refusal where DIR is missing, holds no results, or results of another schema, and
    where matplotlib is not installed; StorageError where DIR cannot be written to.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise Refusal(f"report: matplotlib is not installed; {install('report')}")
    from jaxorg.page import render
    from jaxorg.storage.folder import placing
    from jaxorg.summary import summarise

    text = render(summarise(folder))
    with placing(folder) as beside:
        (beside / PAGE).write_text(text, encoding="utf-8")
    print(folder / PAGE)


if __name__ == "__main__":
    run(report)
