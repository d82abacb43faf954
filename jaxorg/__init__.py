"""Hundreds of small backdoor-robustness experiments at once."""

import importlib
import sys
from types import ModuleType

from jaxorg.distributed import xla_flags

xla_flags.add()

if sys.argv[:1] == ["-m"]:  # `python -m jaxorg.NAME`: Python is still looking for the module
    from jaxorg.distributed.interrupt import leave_on_signals

    leave_on_signals()


def __getattr__(name: str) -> ModuleType:
    """`jaxorg.sweep(…)`, which needs much that `import jaxorg` does not."""
    if name != "sweep":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("jaxorg.sweep")
