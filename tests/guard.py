"""Runs a module as `python -m` does, and writes down everything that could run foreign code.

python tests/guard.py LOG MODULE ARGUMENT...: each line of LOG is an event and what it was given.
Python reports these events itself, whoever causes them, C code included. Left out is marshal as
Python's own import uses it: that is how every compiled module is read.
"""

import pickle
import runpy
import sys
from collections.abc import Callable
from typing import Any

WATCHED = (
    "pickle.find_class",  # an unpickler is about to fetch something to call
    "marshal.load",
    "marshal.loads",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "subprocess.Popen",
    "socket.bind",
    "socket.connect",
    "socket.getaddrinfo",
)
IMPORT = "<frozen importlib._bootstrap_external>"


def watch(note: Callable[[str], object]) -> None:
    """Tell `note` of every watched event from here on."""

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event in WATCHED:
            caller = sys._getframe(1).f_code.co_filename
            if not (event.startswith("marshal") and caller == IMPORT):
                note(f"{event} {given[0] if given else ''!r:.200}")

    def noted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            note(f"pickle.{name} called")
            return original(*args, **kwargs)

        return call

    # Plain data in a pickle fetches nothing; numpy.load(allow_pickle=True) ends here, too.
    for name in ("load", "loads"):
        setattr(pickle, name, noted(name, getattr(pickle, name)))
    sys.addaudithook(hook)


if __name__ == "__main__":
    _, log, module, *arguments = sys.argv
    sys.argv = [module, *arguments]
    with open(log, "a", encoding="utf-8") as file:
        watch(lambda line: print(line, file=file, flush=True))
        runpy.run_module(module, run_name="__main__", alter_sys=True)
