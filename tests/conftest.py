"""Prepares JAX once for all tests: two CPU devices, and no silent broadcasting of ranks."""

import os
from collections.abc import Iterator

import jax
import pytest

from jaxorg import runtime

pytest_plugins = ("tiny",)

runtime.start(int(os.environ.get("TEST_DEVICES", "2")))
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def strict_dtypes() -> Iterator[None]:
    """Refuse implicit dtype promotion.

    Not for all tests: optax's bias correction (Adam, Muon) raises a float to an integer power, and
    jax.nn.dot_product_attention widens bfloat16, both implicitly.
    """
    with jax.numpy_dtype_promotion("strict"):
        yield
