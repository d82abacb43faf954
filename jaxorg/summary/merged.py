"""Results of several folders, copied into one: each run counts once, and what a label does not tell
apart is told apart."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from jaxorg.errors import Refusal

KEYS = {"runs": ["run_id"], "evals": ["run_id", "phase", "step", "metric", "condition"]}
"""What names a row of a table; of others all of it does."""
MADE = ("sweep", "size", "arm", "seed", "chip_seconds", "device", "versions", "git_commit")
"""Columns of `runs` that say where and how a run was made, not what came of it."""


def once(rows: pd.DataFrame, table: str) -> pd.DataFrame:
    """The rows of a table; what several folders have alike stands there once.

    Raises:
        Refusal: what they have of one run differs.
    """
    key = KEYS.get(table, list(rows.columns))
    told = [name for name in rows.columns if name not in (*key, *MADE)]
    kept = rows.drop_duplicates([*key, *told])
    twice = kept[kept.duplicated(key, keep=False)]
    if not len(twice):
        return kept
    of_one = twice[(twice[key] == twice[key].iloc[0]).all(axis=1)]
    differing = [name for name in told if of_one[name].nunique(dropna=False) > 1]
    raise Refusal(
        f"run_id: {of_one.run_id.iloc[0]} stands in {table} twice, with a different "
        f"{', '.join(differing[:3])}; take one out, or report each folder by itself"
    )


def untold(configs: Sequence[str], labels: Sequence[str]) -> dict[str, list[Any]]:
    """What differs between the configs of runs that have one label: by path the value of each run,
    None where its config has no such key. A name for people (`….label`) changes nothing.

    Raises:
        Refusal: a config is not JSON.
    """
    of_label: dict[str, set[str]] = {}
    for label, config in zip(labels, configs, strict=True):
        of_label.setdefault(label, set()).add(config)
    several = {label: texts for label, texts in of_label.items() if len(texts) > 1}
    known = {text: _settings(text) for texts in several.values() for text in texts}
    paths = {
        path: None
        for texts in several.values()
        for path in _differing([known[text] for text in sorted(texts)])
        if path.rpartition(".")[2] != "label"
    }
    if paths:
        known |= {text: _settings(text) for text in set(configs) - set(known)}
    return {path: [known[text].get(path) for text in configs] for path in paths}


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    paths = dict.fromkeys(path for each in settings for path in each)
    return [path for path in paths if any(s.get(path) != settings[0].get(path) for s in settings)]


def _settings(config: str) -> Mapping[str, Any]:
    """A config's values by path."""
    try:
        return dict(_leaves(json.loads(config), ""))
    except (ValueError, RecursionError) as error:
        raise Refusal(f"config: {config[:40]!r} is not JSON; run the sweep again") from error


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield path, value
        return
    for key, inner in value.items():
        yield from _leaves(inner, f"{path}.{key}" if path else key)
