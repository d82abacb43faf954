"""Prepares JAX once for all tests: two CPU devices, no silent broadcasting of ranks, and shapes as
annotations say."""

import gc
import os
from collections.abc import Iterator

import jax
import pytest
from jaxtyping import install_import_hook

# What is imported before is not checked, so this comes first.
install_import_hook(("jaxorg.llama", "jaxorg.optimizers"), "types_checked.check")

from jaxorg.distributed import runtime  # noqa: E402
from jaxorg.engine.measure import scoring  # noqa: E402

pytest_plugins = ("tiny", "plans")

runtime.start(int(os.environ.get("TEST_DEVICES", "2")))
jax.config.update("jax_numpy_rank_promotion", "raise")
# One length for most rows that are measured: a program for each takes longer to compile than to run
# (`test_measure.py` compares lengths).
scoring.BUCKET = 48


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
