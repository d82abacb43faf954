"""What annotations say of shapes is checked wherever tests run the model or an optimizer."""

import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from jaxorg import llama, optimizers
from jaxorg.llama.damage import pruned
from jaxorg.llama.model import rotate
from jaxorg.optimizers.factoring import transposed
from jaxorg.optimizers.state import to_bfloat16

HEADS, ANGLES = jnp.zeros((2, 5, 3, 8)), jnp.zeros((1, 5, 4))  # [B, T, heads, H], [1, T, H / 2]


@pytest.mark.parametrize("package", [llama, optimizers])
def test_every_module_is_checked(package: ModuleType) -> None:
    """What is imported before the hook is there would not be, without a word."""
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        loader = importlib.import_module(found.name).__spec__.loader
        assert type(loader).__module__.startswith("jaxtyping."), found.name


def test_swapped_axes_are_found() -> None:
    assert rotate(HEADS, ANGLES).shape == HEADS.shape
    with pytest.raises(TypeCheckError, match="'angles'"):
        rotate(HEADS.swapaxes(1, 2), ANGLES)
    with pytest.raises(TypeCheckError, match="'angles'"):
        rotate(HEADS, ANGLES.swapaxes(1, 2))


def test_swapped_axes_are_found_of_stacked_runs_while_they_are_traced() -> None:
    stacked = jnp.zeros((4, *HEADS.shape))
    both = jax.jit(jax.vmap(rotate, (0, None)))
    assert both(stacked, ANGLES).shape == stacked.shape
    with pytest.raises(TypeCheckError, match="'angles'"):
        both(stacked.swapaxes(2, 3), ANGLES)


@pytest.mark.parametrize(
    "call",
    [
        lambda: transposed(jnp.zeros(3)),
        lambda: to_bfloat16(jnp.zeros(3, jnp.bfloat16), jax.random.key(0)),
        lambda: to_bfloat16(jnp.zeros(3), jax.random.split(jax.random.key(0))),
        lambda: pruned({"kernel": jnp.zeros((2, 3))}, jnp.float32(0.5)),
    ],
    ids=["a vector as a matrix", "another dtype", "two keys", "no layers"],
)
def test_other_ranks_and_dtypes_are_found(call: Callable[[], object]) -> None:
    with pytest.raises(TypeCheckError):
        call()
