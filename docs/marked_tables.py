"""Tables between marks of a page, for the scripts that compute them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxorg.storage.folder import placing


def write_table(page: Path, script: str, name: str, rows: Sequence[Sequence[str]]) -> None:
    """Put a table between its mark and the next end.

    Args:
        page: a Markdown file that has `<!-- script: name -->`, and after it `<!-- script: end -->`.
        script: what the marks are named after.
        name: of the table.
        rows: the head, then the others, a text a cell.
    """
    mark, end = (f"<!-- {script}: {each} -->\n" for each in (name, "end"))
    head, *body = rows
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *body))
    before, found, rest = page.read_text(encoding="utf-8").partition(mark)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise ValueError(f"{page} has no place for the table {name}")
    with placing(page.parent) as beside:
        (beside / page.name).write_text(f"{before}{mark}\n{table}\n{end}{after}", encoding="utf-8")
