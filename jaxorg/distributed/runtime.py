"""The one place that prepares the machine: XLA options, devices, compile cache, a self-test.

`start` runs before any JAX back end does, if it can. Nothing else in the project touches
`jax.config`.
"""

from __future__ import annotations

import errno
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import distributed

from jaxorg.distributed import xla_flags
from jaxorg.errors import Refusal
from jaxorg.user_cache import cache_folder


def out_of_memory(error: Exception) -> bool:
    """Whether a device or the host had no memory left."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def join(
    address: str | None = None, count: int | None = None, index: int | None = None
) -> tuple[Any, int, int]:
    """Find the other processes of this program, before any back end runs.

    Args:
        address: HOST:PORT at which the first process listens; None lets JAX ask the cluster that
            it runs on, as for `count` and `index`.
        count: how many processes there are.
        index: which of them this is.

    Returns:
        The client of JAX's coordinator, `count` and `index`.

    Raises:
        Refusal: JAX knows no cluster here.
    """
    # It would take SIGTERM, which is ours (`distributed/interrupt.py`).
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(address, count, index)
    except (ValueError, RuntimeError) as error:
        raise Refusal(
            f"--distributed: JAX finds no other processes ({' '.join(str(error).split())}); set "
            f"JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID"
        ) from error
    found = distributed.global_state  # there is no public way to what was found
    return found.client, found.num_processes, found.process_id


def start(cpu_devices: int | None = None, fewer_will_do: bool = False) -> None:
    """Prepare JAX in this process and refuse a back end that computes wrongly.

    Args:
        cpu_devices: XLA devices to make of the CPU; None for one a core. Ignored where an
            accelerator is the default back end.
        fewer_will_do: take those of a back end that runs already, as in a notebook.

    Raises:
        Refusal: the self-test disagrees with numpy, or a back end is running already with
            another number of CPU devices.
    """
    count = cpu_devices or cores()
    xla_flags.add()
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # a back end runs already: fine if it is what was asked for
        few = jax.default_backend() == "cpu" and jax.local_device_count() < count
        if few and not fewer_will_do:
            raise Refusal(
                f"--mesh: {count} CPU devices asked for, but JAX already runs with "
                f"{jax.local_device_count()}; start a new process"
            ) from None
    self_test()  # before there is a cache: what a wrong back end compiles must not be kept
    _keep_programs()


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _keep_programs() -> None:
    """Let JAX keep what it compiles; where that is not possible, say so and go on without."""
    folder = cache_folder()
    try:
        if folder is None:
            raise FileNotFoundError(errno.ENOENT, "this user has no home folder")
        folder /= "xla"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        where = folder or "JAXORG_CACHE is not set"
        print(
            f"jaxorg: {where}: compiled programs are not kept ({error.strerror}); set JAXORG_CACHE "
            f"to a folder that can be written to",
            file=sys.stderr,
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def self_test() -> None:
    """Compare a compiled product and reduction with numpy; see jax-ml/jax#39103.

    Raises:
        Refusal: the back end's numbers are wrong.
    """
    rows = np.zeros((32_769, 3), np.float32)  # the size from which jaxlib 0.10.2 went wrong
    rows[:, 0] = np.arange(len(rows))
    matrix = np.eye(3, dtype=np.float32)

    @jax.jit
    def squares(x: jax.Array) -> jax.Array:
        return jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))(x)

    expected = rows[:, 0].astype(np.float64) ** 2
    with jax.default_matmul_precision("highest"):  # accelerators round to fewer bits by default
        found = np.asarray(squares(rows))
    if not np.allclose(found, expected, rtol=1e-6):
        raise Refusal(
            f"back end: jaxlib {importlib.metadata.version('jaxlib')} computes wrongly on "
            f"{jax.default_backend()} (self-test against numpy failed); start jaxorg in a fresh "
            f"process, import it before JAX computes, or install another jaxlib"
        )


def versions() -> dict[str, str]:
    """Python's and the numerical packages' versions, for the `runs` table."""
    names = ("jaxorg", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in names},
    }


def git_commit() -> str:
    """The commit this package runs from, with `-dirty` if changed; empty outside a checkout, and
    where git is not installed."""
    here = Path(__file__).resolve().parents[1]
    if not (here.parent / ".git").exists():
        return ""
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # there is no git here
        return ""
    return found.stdout.strip()
