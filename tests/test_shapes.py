"""What annotations say of shapes is checked where tests run the model, an optimizer or a step."""

import importlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError
from types_checked import SHAPED

from jaxorg.llama.damage import pruned
from jaxorg.llama.model import rotate
from jaxorg.optimizers.factoring import transposed
from jaxorg.optimizers.state import to_bfloat16

HEADS, ANGLES = jnp.zeros((2, 5, 3, 8)), jnp.zeros((1, 5, 4))  # [B, T, heads, H], [1, T, H / 2]


@pytest.mark.parametrize("module", SHAPED)
def test_every_module_that_says_shapes_is_checked(module: str) -> None:
    """What is imported before the hook is there would not be, without a word."""
    loader = importlib.import_module(module).__spec__.loader
    assert type(loader).__module__.startswith("jaxtyping.")


def test_model_optimizers_and_engine_say_shapes() -> None:
    assert {
        "jaxorg.llama.model",
        "jaxorg.llama.generate",
        "jaxorg.optimizers.soap",
        "jaxorg.engine.score",
        "jaxorg.engine.step",
        "jaxorg.engine.latent",
    } <= set(SHAPED)


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
