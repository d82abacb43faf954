"""The door `python -m jaxorg.report DIR`: one self-contained page from a folder of parquet."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Annotated

import typer

from jaxorg.cli import run
from jaxorg.page import render
from jaxorg.runtime import Refusal, install
from jaxorg.summary import summarise


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="the folder of a sweep's results")],
) -> None:
    """Write DIR/report.html from the parquet tables in DIR, and nothing else.

    Raises Refusal where DIR is missing, holds no results, or results of another schema, and
    where matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise Refusal(f"report: matplotlib is not installed; {install('report')}")
    page = folder / "report.html"
    text = render(summarise(folder))
    beside = page.with_suffix(".html.tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, page)
    print(page)


if __name__ == "__main__":
    run(report)
