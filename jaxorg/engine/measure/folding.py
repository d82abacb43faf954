"""Adds up what was counted by family, for those who know which families the blue team trains on.

Base and organism are shared by runs whose blue teams train on different families, so records keep
counts of each family, and whoever reads them folds these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jaxorg.evaluators.base import OF_FAMILY

Row = dict[str, Any]
BLUE = "blue"


def folded(rows: Iterable[Mapping[str, Any]], blue: frozenset[str]) -> list[Row]:
    """Rows of a record as a run has them: what was counted by family is added up over families that
    are held out from the blue team, under the plain condition; over its own families under
    `clean:blue` and `triggered:blue`, and under no narrower condition.

    Args:
        rows: the record's `evals`.
        blue: the families that the run's blue team trains on; none where nothing is held out.
    """
    found: list[Row] = []
    sums: dict[tuple[int, str, str], Row] = {}
    for row in rows:
        condition, of, family = row["condition"].partition(OF_FAMILY)
        if not of:
            found.append({**row})
            continue
        if family in blue:
            if ":" in condition:
                continue
            condition = f"{condition}:{BLUE}"
        key = row["step"], row["metric"], condition
        if key not in sums:
            sums[key] = {**row, "condition": condition, "k": 0, "n": 0}
            found.append(sums[key])
        sums[key]["k"] += row["k"]
        sums[key]["n"] += row["n"]
    for total in sums.values():
        total["value"] = total["k"] / total["n"]
    return found
