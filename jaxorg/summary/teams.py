"""What the red team did in a run, and what the blue team did, in a few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from jaxorg.summary.tables import text
from jaxorg.sweepfile.labels import of_organism, phrase, short_names

BLUE = ("treatment", "reversal")


@dataclass(frozen=True)
class Teams:
    """Names runs by some of the grid's fields: those of treatment and reversal are blue, all others
    red. A label stands for whatever goes with it. Results of several sweeps or sizes in one folder
    are told apart on the red side."""

    names: Mapping[str, str]  # a field's shortest name that is its own
    of_controls: Mapping[str, str]  # the same for controls, which have no organism of their own

    @classmethod
    def of(cls, runs: pd.DataFrame, fields: Sequence[str]) -> Teams:
        """What tells the runs of a folder apart, by these of its fields."""
        several = [name for name in ("sweep", "size") if runs[name].nunique() > 1]

        def named(fields: Sequence[str], runs: pd.DataFrame) -> Mapping[str, str]:
            labels = [name for name in fields if name.endswith(".label")]
            shown = [
                name
                for name in fields
                if name in labels or not any(_goes_with(runs, name, label) for label in labels)
            ]
            return short_names([*several, *shown])

        controls = runs.control.map(text) != ""
        of_all = [name for name in fields if not of_organism(name)]
        return cls(named(fields, runs[~controls]), named(of_all, runs))

    def group_key(self, row: Mapping[str, Any]) -> str:
        """Equal for runs of one organism and treatment; the seed is left out."""
        return repr([row["control"], *(row[name] for name in self._names(row))])

    def red(self, row: Mapping[str, Any]) -> str:
        """The organism; a control stands in for any."""
        shown = self._shown(row, blue=False)
        if control := text(row["control"]):
            return f"{control} control {shown}".strip()
        return shown or "the organism"

    def blue(self, row: Mapping[str, Any]) -> str:
        """The treatment, and its reversal."""
        return self._shown(row, blue=True) or "the treatment"

    def _shown(self, row: Mapping[str, Any], blue: bool) -> str:
        names = self._names(row)
        side = [path for path in names if (path.partition(".")[0] in BLUE) == blue]
        return phrase({path: row[path] for path in side if pd.notna(row[path])}, names)

    def _names(self, row: Mapping[str, Any]) -> Mapping[str, str]:
        return self.of_controls if text(row["control"]) else self.names


def _goes_with(runs: pd.DataFrame, field: str, label: str) -> bool:
    """Whether a label's value tells the field's."""
    return bool(runs.groupby(label, dropna=False)[field].nunique(dropna=False).max() <= 1)
