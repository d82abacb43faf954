"""The command `jaxorg NAME …`, the same as `python -m jaxorg.NAME …`."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

from jaxorg.distributed.interrupt import leave_on_signals

# A command is imported when it is asked for: each needs much that the others do not.
COMMANDS = {
    "sweep": "Train, treat and measure every run of a sweep.",
    "measure": "Measure what a sweep has trained in another way.",
    "list": "List organisms, treatments, evaluators, optimizers, sweeps or meshes.",
    "fit": "Say whether a sweep fits a TPU slice, without the TPU.",
    "report": "Make a page of a sweep's results.",
    "export": "Write a run's weights as a folder for Transformers or PEFT.",
    "pretrain": "Train the built-in base model from scratch.",
    "bench": "Measure how fast this machine trains.",
}


def main() -> NoReturn:
    """Open the command that the first argument names."""
    leave_on_signals()
    from jaxorg.cli import common, streams  # which takes a while
    from jaxorg.suggest import choose

    streams.harden()
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        commands = "\n".join(f"  {command:<10}{about}" for command, about in COMMANDS.items())
        print(f"Usage: jaxorg NAME [OPTIONS]\n\n{commands}\n\njaxorg NAME --help says more.")
        common.leave(0)
    if name not in COMMANDS:
        common.refuse(f"{name!r} is no command; {choose(name, COMMANDS)}")
    common.run(getattr(importlib.import_module(f"jaxorg.{name}"), name), rest, f"jaxorg {name}")


if __name__ == "__main__":
    main()
