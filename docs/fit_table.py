"""Writes the table of docs/fit.md: `make fit-table`. Needs libtpu (`pip install 'jaxorg[tpu]'`).

Each row is what `python -m jaxorg.fit quickstart --mesh SLICE --json` says with the settings below.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "fit.md"
BEGIN, END = "<!-- made by docs/fit_table.py -->\n", "<!-- end -->\n"
WHOLE = [f"{phase}.train.lora=null" for phase in ("organism", "treatment", "reversal")]
LARGE = ["base.model=meta-llama/Llama-3.3-70B-Instruct", "organism.train.lora=null"]
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


def main() -> None:
    """Ask `fit`, and write what it says between the page's marks, answer by answer."""
    lines = [" | ".join(HEAD), " | ".join("---" for _ in HEAD)]
    for name, mesh, changes in ASKED:
        lines += [" | ".join([name, *row]) for row in _rows(mesh, changes)]
        table = "".join(f"| {line} |\n" for line in lines)
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def _rows(mesh: str, changes: list[str]) -> list[list[str]]:
    command = [sys.executable, "-m", "jaxorg.fit", "quickstart", "--mesh", mesh, "--json"]
    for change in changes:
        command += ["--set", change]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode == 2:
        sys.exit(2)
    outcome = json.loads(found.stdout)
    axes = ", ".join(f"{axis}={size}" for axis, size in outcome["axes"].items() if size > 1)
    place = f"{outcome['mesh']} ({axes})"
    return [_row(place, each) for each in outcome["cohorts"]]


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
