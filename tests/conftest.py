"""Prepares JAX once for all tests: two CPU devices, no silent broadcasting of ranks, and shapes as
annotations say."""

import gc
import os
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import jax
import pytest
from jaxtyping import install_import_hook
from types_checked import SHAPED

# What is imported before is not checked, so this comes first.
install_import_hook(SHAPED, "types_checked.check")

from jaxorg.distributed import runtime  # noqa: E402
from jaxorg.engine.measure import calls  # noqa: E402
from jaxorg.engine.run.answers import Answerer  # noqa: E402
from jaxorg.engine.run.group import Group  # noqa: E402

pytest_plugins = ("tiny", "plans")

runtime.start(int(os.environ.get("TEST_DEVICES", "2")))
jax.config.update("jax_numpy_rank_promotion", "raise")
# One length for most rows that are measured: a program for each takes longer to compile than to run
# (`test_measure.py` compares lengths).
calls.PROMPT_PAD_MULTIPLE = calls.PAD_MULTIPLE = 48


def without_silent_transfers(work: Callable[..., Any]) -> Callable[..., Any]:
    """Fail where arrays move between host and devices, or between devices, without being asked to
    by `engine/arrays.py`. On a CPU a device's memory is the host's: reading it is no transfer."""

    @wraps(work)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        with jax.transfer_guard("disallow"):
            return work(*args, **kwargs)

    return guarded


for name in ("measure_only", "change_only", "measure_stored", "train"):
    setattr(Group, name, without_silent_transfers(getattr(Group, name)))
setattr(Answerer, "answer", without_silent_transfers(Answerer.answer))  # noqa: B010

MOST_MAPS = 35_000


@pytest.fixture(autouse=True)
def few_programs() -> Iterator[None]:
    """Let go of compiled programs before they take too many memory maps, of which a process may
    have some 65,000: XLA crashes beyond."""
    yield
    with open("/proc/self/maps", "rb") as maps:
        many = sum(1 for _ in maps) > MOST_MAPS
    if many:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def strict_dtypes() -> Iterator[None]:
    """Refuse implicit dtype promotion.

    Not for all tests: optax's bias correction (Adam, Muon) raises a float to an integer power, and
    jax.nn.dot_product_attention widens bfloat16, both implicitly.
    """
    with jax.numpy_dtype_promotion("strict"):
        yield
