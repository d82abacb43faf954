"""Hundreds of small backdoor-robustness experiments at once."""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m jaxorg.NAME`: Python is still looking for the module
    from jaxorg.distributed.interrupt import leave_on_signals

    leave_on_signals()
