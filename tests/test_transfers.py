"""Nothing moves silently between the host and devices while runs are trained and measured.

`conftest.py` guards every sweep that a test runs in its own process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxorg.engine.cohort import Stack
from jaxorg.planning.manifest import of_results, standing
from sweeps import start

SHORT = ("grid=[{organism.payload_repeats: [1]}]", "seeds=1", "reversal=null")


def test_a_silent_transfer_in_training_fails_the_run(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stack, "place_shared", lambda _, tree: tree)
    assert start(tmp_path / "out", tiny_base, *SHORT) == 1
    errors = standing(of_results(tmp_path / "out", "--out"), tmp_path / "out").errors
    assert any("Disallowed host-to-device transfer" in error for error in errors.values())


ONE = np.ones(3, np.float32)
SILENT: dict[str, Callable[[jax.Array], Any]] = {
    "an array of the host": lambda x: jnp.negative(ONE),
    "a number beside an array": lambda x: x + 1,
    "a key's seed": lambda x: jax.random.key(3),
    "an index": lambda x: x[0],
}


@pytest.mark.parametrize("use", SILENT.values(), ids=SILENT)
def test_the_guard_sees(use: Callable[[jax.Array], Any]) -> None:
    x = jax.device_put(ONE)
    use(x)
    with jax.transfer_guard("disallow"), pytest.raises(Exception, match="Disallowed host-to-dev"):
        use(x)


def test_the_guard_leaves_what_is_asked_for() -> None:
    with jax.transfer_guard("disallow"):
        assert jax.device_get(jnp.negative(jax.device_put(ONE))).sum() == -3
