"""Prepares JAX once for all tests: two CPU devices, and no silent broadcasting of ranks."""

import gc
import os
from collections.abc import Iterator

import jax
import pytest

from jaxorg import runtime

pytest_plugins = ("tiny",)

runtime.start(int(os.environ.get("TEST_DEVICES", "2")))
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="module")
def programs_of_a_file() -> Iterator[None]:
    """Let go of compiled programs at the end of each file: they take memory maps, of which a
    process may have some 65,000, and XLA crashes beyond."""
    yield
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
