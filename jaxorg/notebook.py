"""Sweeps from Python: `import jaxorg; result = jaxorg.sweep("quickstart", size="smoke")`."""

from __future__ import annotations

import html
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_args

from jaxorg.distributed.interrupt import INTERRUPTED
from jaxorg.errors import Refusal
from jaxorg.storage.layout import Keep

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Page:
    """A sweep's page: a file, and in a notebook the page itself."""

    path: Path

    def _repr_html_(self) -> str:
        """A frame around it, in which its script may run and reach nothing around."""
        page = html.escape(self.path.read_text(encoding="utf-8"))
        look = 'width="100%" height="700" style="border: 1px solid #ccc"'
        return f'<iframe {look} sandbox="allow-scripts" srcdoc="{page}"></iframe>'


@dataclass(frozen=True)
class Results:
    """A sweep's results folder, whose tables are read when they are first asked for."""

    folder: Path

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row a run: what was asked for, and what came of it (docs/measurements.md)."""
        return self._table("runs")

    @cached_property
    def evals(self) -> pd.DataFrame:
        """A row for everything that was measured, by run, phase and step."""
        return self._table("evals")

    @cached_property
    def losses(self) -> pd.DataFrame:
        """A row a step."""
        return self._table("losses")

    @cached_property
    def samples(self) -> pd.DataFrame:
        """A row an answer."""
        return self._table("samples")

    def page(self) -> Page:
        """Write the sweep's page, report.html in its folder.

        Raises:
            Refusal: matplotlib is not installed, or the results are damaged.
            StorageError: the folder cannot be written to.
        """
        from jaxorg.report import PAGE, report

        report(self.folder)
        return Page(self.folder / PAGE)

    def _table(self, name: str) -> pd.DataFrame:
        import pandas as pd

        return pd.read_parquet(self.folder / name)


def sweep(
    name: str | Path = "quickstart",
    size: str = "laptop",
    set: Mapping[str, Any] | None = None,
    out: Path | str | None = None,
    mesh: str | None = None,
    width: str | int = "auto",
    keep: Keep = "final",
    fresh: bool = False,
    retry_failed: bool = False,
) -> Results:
    """Train, treat and measure every run of a sweep that is not done, in this process.

    Args:
        name: a built-in sweep's name, or a YAML file's path.
        size: one of the file's.
        set: keys to change, by their dotted paths: `{"seeds": 2}`.
        out: folder of results; None: results/SWEEP-SIZE.
        mesh: as `--mesh`; None: all devices.
        width: runs that a device trains side by side, or auto.
        keep: weights that stay on disk, as `--keep`.
        fresh: forget what is done and start over.
        retry_failed: try runs again that failed.

    Raises:
        Refusal: something in the file or the arguments is wrong, and nothing on disk has changed;
            or JAX has computed here before jaxorg was imported, and computes wrongly.
        StorageError: the disk does not take the results, or damages them again and again.
        KeyboardInterrupt: it was stopped; the same call goes on.
    """
    from jaxorg.cli.sweep import SweepOptions, default_folder, run_sweep
    from jaxorg.sweepfile import spec, yaml

    if keep not in get_args(Keep):
        raise Refusal(f"keep: {keep!r} is invalid; choose from {', '.join(get_args(Keep))}")
    if not isinstance(set, Mapping | None):
        raise Refusal(f"set: {set!r:.40} is invalid; map paths to values, as in {{'seeds': 2}}")
    overrides = [f"{path}={yaml.written(value, path)}" for path, value in (set or {}).items()]
    folder = Path(out) if out else default_folder(spec.load(str(name), size, overrides), size)
    options = SweepOptions(
        size, overrides, folder, mesh and str(mesh), str(width), keep,
        fresh=fresh, retry_failed=retry_failed, in_process=True,
    )  # fmt: skip
    if run_sweep(str(name), options) == INTERRUPTED:
        raise KeyboardInterrupt
    return Results(folder.resolve())


class CallableModule(ModuleType):
    """The module of the command, which may be called as well: `jaxorg.sweep(…)`."""

    def __call__(self, *args: Any, **options: Any) -> Results:
        """As `sweep`."""
        return sweep(*args, **options)


def make_callable(name: str) -> None:
    """Let a module that has been imported be called, and described, as `sweep` is."""
    module = sys.modules[name]
    module.__class__ = CallableModule
    module.__doc__ = sweep.__doc__
    vars(module)["__signature__"] = inspect.signature(sweep)
