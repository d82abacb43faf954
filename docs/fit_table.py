"""Writes the tables of docs/fit.md: `make fit-table`. Needs libtpu (`pip install -e '.[tpu]'`).

Rows are what `python -m jaxorg.fit SWEEP --mesh SLICE --json` says: of the quickstart with the
settings below, and of the other sweeps that have a size `llama` as they are.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxorg.storage.folder import placing
from jaxorg.sweepfile import builtin

PAGE = Path(__file__).parent / "fit.md"
MODELS, SWEEPS, END = (f"<!-- fit_table.py: {it} -->\n" for it in ("models", "sweeps", "end"))
WHOLE = [f"{phase}.train.lora=null" for phase in ("organism", "treatment", "reversal")]
LARGE = ["base.model=meta-llama/Llama-3.3-70B-Instruct", "organism.train.lora=null"]
LARGE += ["organism.train.state_dtype=bfloat16"]
LARGE += [f"{phase}.train.batch=16" for phase in ("organism", "treatment", "reversal")]
ASKED = [  # what it is called, --mesh, --set
    ("Llama-3.1-8B, LoRA of rank 64", "v4-64", []),
    (
        "Llama-3.2-1B, all weights",
        "v4-64",
        ["base.model=meta-llama/Llama-3.2-1B-Instruct", *WHOLE],
    ),
    ("Llama-3.3-70B, organism all weights, others LoRA of rank 64", "v5p", LARGE),
    ("Llama-3.3-70B, organism all weights, others LoRA of rank 64", "v6e", LARGE),
]
HEAD = [
    "model",
    "phases",
    "slice",
    "runs side by side",
    "GiB a chip: train, score, generate",
    "of",
    "s a step",
    "s to compile, at most",
    "GB of host memory, at most",
]
OTHERS = [
    name
    for name, path in builtin.sweeps().items()
    if name != "quickstart" and "  llama:" in path.read_text(encoding="utf-8")
]
SLICE = "v4-64"
SWEEPS_HEAD = [
    "sweep",
    "slice",
    "fits",
    "groups that share programs",
    "runs side by side",
    "the fullest: GiB a chip",
    "of",
    "chip-hours",
    "s to compile all",
]


def main() -> None:
    """Ask `fit`, and write what it says between the page's marks, answer by answer."""
    rows: list[Sequence[str]] = []
    for name, mesh, changes in ASKED:
        found = _fit("quickstart", mesh, changes)
        rows += [(name, *_row(_place(found), each)) for each in found["cohorts"]]
        _write(MODELS, HEAD, rows)
    rows = []
    for name in OTHERS:
        rows.append((f"`{name}`", *_whole(_fit(name, SLICE, []))))
        _write(SWEEPS, SWEEPS_HEAD, rows)


def _write(mark: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Put a table between its mark and the next end."""
    lines = (" | ".join(cells) for cells in (head, ["---"] * len(head), *rows))
    table = "".join(f"| {line} |\n" for line in lines)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(mark)
    _, _, after = rest.partition(END)
    with placing(PAGE.parent) as beside:
        (beside / PAGE.name).write_text(f"{before}{mark}\n{table}\n{END}{after}", encoding="utf-8")


def _fit(sweep: str, mesh: str, changes: Iterable[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "jaxorg.fit", sweep, "--mesh", mesh, "--json"]
    for change in changes:
        command += ["--set", change]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode == 2:
        sys.exit(2)
    outcome: dict[str, Any] = json.loads(found.stdout)
    return outcome


def _place(outcome: dict[str, Any]) -> str:
    axes = ", ".join(f"{axis}={size}" for axis, size in outcome["axes"].items() if size > 1)
    return f"{outcome['mesh']} ({axes})"


def _whole(outcome: dict[str, Any]) -> list[str]:
    cohorts = outcome["cohorts"]
    lanes = {each["lanes"] for each in cohorts}
    fullest = max(cohorts, key=lambda each: each["memory"])
    seconds = sum(each["seconds"] for fit in cohorts for each in fit["programs"].values())
    return [
        _place(outcome),
        "yes" if outcome["fits"] else "NO",
        str(len(cohorts)),
        " to ".join(str(each) for each in sorted({min(lanes), max(lanes)})),
        f"{fullest['memory'] / 2**30:.1f}",
        f"{fullest['room'] / 2**30:.1f}",
        f"{outcome['chip_hours']:.0f}",
        f"{seconds:.0f}",
    ]


def _row(place: str, fit: dict[str, Any]) -> list[str]:
    programs = fit["programs"]
    sizes = [programs.get(does, {}).get("memory") for does in ("train", "score", "generate")]
    verdict = "" if fit["fits"] else " DOES NOT FIT"
    return [
        ", ".join(fit["cohorts"]),
        f"{place}{verdict}",
        str(fit["lanes"]),
        ", ".join(f"{size / 2**30:.1f}" if size else "–" for size in sizes),
        f"{fit['room'] / 2**30:.1f}",
        f"{fit['step_seconds']:.2g}" if fit["step_flops"] else "–",
        f"{max(each['seconds'] for each in programs.values()):.0f}",
        f"{max(each['host_memory'] for each in programs.values()) / 1e9:.1f}",
    ]


if __name__ == "__main__":
    main()
