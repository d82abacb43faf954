"""The command `jaxorg NAME …`, the same as `python -m jaxorg.NAME …`."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

from jaxorg.distributed.interrupt import leave_on_signals

# A door is imported when it is asked for: each needs much that the others do not.
DOORS = {
    "sweep": "Train, treat and measure every run of a sweep.",
    "list": "List organisms, treatments, evaluators, optimizers, sweeps or meshes.",
    "fit": "Say whether a sweep fits a TPU slice, without the TPU.",
    "report": "Make a page of a sweep's results.",
    "export": "Write a run's weights as a folder for Transformers or PEFT.",
    "pretrain": "Train the shipped base model from scratch.",
    "bench": "Measure how fast this machine trains.",
}


def main() -> NoReturn:
    """Open the door that the first argument names."""
    leave_on_signals()
    from jaxorg.cli import common, streams  # which takes a while
    from jaxorg.suggest import choose

    streams.harden()
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        doors = "\n".join(f"  {door:<10}{about}" for door, about in DOORS.items())
        print(f"Usage: jaxorg NAME [OPTIONS]\n\n{doors}\n\njaxorg NAME --help says more.")
        common.leave(0)
    if name not in DOORS:
        common.refuse(f"{name!r} is no command; {choose(name, DOORS)}")
    common.run(getattr(importlib.import_module(f"jaxorg.{name}"), name), rest, f"jaxorg {name}")


if __name__ == "__main__":
    main()
