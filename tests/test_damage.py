"""Treatments that change weights, and training under disturbances."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stacked import trained
from tiny import TINY
from weights import random_weights

from jaxorg.engine import latent
from jaxorg.llama import damage
from jaxorg.planning.signature import ModelSignature

WEIGHTS = jax.tree.map(jnp.asarray, random_weights(ModelSignature(TINY))[0])
LAYERS, WIDTH = TINY.num_hidden_layers, TINY.hidden_size


def kernels(weights: Any) -> list[np.ndarray]:
    """The matrices of the blocks, one [L, in, out] for each place in a block."""
    found = jax.tree_util.tree_leaves_with_path(weights)
    return [np.asarray(leaf) for path, leaf in found if path[-1].key == "kernel"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_pruning_leaves_just_that_share_of_zeros(share: float) -> None:
    after = damage.pruned(WEIGHTS, jnp.float32(share))
    for old, new in zip(kernels(WEIGHTS), kernels(after), strict=True):
        for before, left in zip(old, new, strict=True):  # each layer's matrix by itself
            assert (left == 0).sum() == round(share * before.size)
            np.testing.assert_array_equal(left[left != 0], before[left != 0])
            assert (np.abs(before[left == 0]).max(initial=0) <= np.abs(before[left != 0])).all()
    for name in ("embedding", "norm"):
        jax.tree.map(np.testing.assert_array_equal, WEIGHTS[name], after[name])


def test_of_equal_weights_just_that_share_is_pruned() -> None:
    alike = jax.tree.map(jnp.ones_like, WEIGHTS)
    found = kernels(damage.pruned(alike, jnp.float32(0.25)))
    assert all((layer == 0).mean() == 0.25 for kernel in found for layer in kernel)


def test_noise_is_in_units_of_each_matrix() -> None:
    uneven = jax.tree.map(np.copy, WEIGHTS)
    uneven["blocks"]["mlp"]["up"]["kernel"][1] *= 100
    uneven = jax.tree.map(jnp.asarray, uneven)
    after = damage.noisy(uneven, jax.random.key(0), jnp.float32(0.1))
    for old, new in zip(kernels(uneven), kernels(after), strict=True):
        for before, changed in zip(old, new, strict=True):
            size = np.sqrt(np.mean(np.square(before)))
            assert np.std(changed - before) == pytest.approx(0.1 * size, rel=0.1)
    assert np.abs(after["embedding"] - uneven["embedding"]).min() > 0
    np.testing.assert_array_equal(after["norm"]["scale"], uneven["norm"]["scale"])
    none = damage.noisy(uneven, jax.random.key(0), jnp.float32(0.0))
    jax.tree.map(np.testing.assert_array_equal, none, uneven)


METHODS: dict[str, dict[str, Any]] = {
    "prune": {"change": "prune"},
    "weight_noise": {"change": "weight_noise"},
    "latent": {"inner_steps": 2},
}
SWEPT: dict[str, dict[str, list[float]]] = {
    "prune": {"pruned_share": [0.2, 0.3, 0.5]},
    "weight_noise": {"noise_scale": [0.1, 0.2, 0.3]},
    "latent": {"latent_epsilon": [0.1, 0.2, 0.3], "latent_layer": [0, 1, 0]},
}


@pytest.mark.parametrize(
    ("name", "ranks"),
    [
        ("prune", ()),
        ("latent", ()),
        pytest.param("weight_noise", (), marks=pytest.mark.long),
        pytest.param("latent", (2, 4, 2), marks=pytest.mark.long),
    ],
)
def test_stacked_equals_solo(name: str, ranks: tuple[int, ...]) -> None:
    """What changes weights does so at the start, before any step."""
    steps = 3 if name == "latent" else 0
    own = {key: values[1:2] for key, values in SWEPT[name].items()}
    many, losses = trained(
        "adamw", [0, 1, 2], ranks, swept=SWEPT[name], steps=steps, **METHODS[name]
    )
    one, alone = trained("adamw", [1], ranks[1:2], swept=own, steps=steps, **METHODS[name])
    np.testing.assert_allclose(losses[1], alone[0], rtol=1e-5)
    for stacked, solo in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(stacked[1], solo[0], rtol=2e-4, atol=2e-6)


def test_what_is_pruned_stays_so_in_training() -> None:
    method, swept = METHODS["prune"], {"pruned_share": [0.2, 0.5]}
    before, _ = trained("adamw", [0, 3], swept=swept, steps=0, **method)
    after, _ = trained("adamw", [0, 3], swept=swept, **method)
    for old, new in zip(kernels(before.trainable), kernels(after.trainable), strict=True):
        np.testing.assert_array_equal(old == 0, new == 0)
        assert (old != new).any()
        zeros = (old == 0).mean(axis=(2, 3))
        np.testing.assert_allclose(zeros, [[0.2] * LAYERS, [0.5] * LAYERS], atol=1e-3)


def test_weights_are_shaken_once_and_then_trained() -> None:
    method, swept = METHODS["weight_noise"], {"noise_scale": [0.2]}
    plain, _ = trained("adamw", [1], steps=0)
    shaken, _ = trained("adamw", [1], steps=0, swept=swept, **method)
    for old, new in zip(kernels(plain.trainable), kernels(shaken.trainable), strict=True):
        size = np.sqrt(np.mean(np.square(old)))
        assert np.sqrt(np.mean(np.square(new - old))) == pytest.approx(0.2 * size, rel=0.1)
    _, losses = trained("adamw", [1], swept=swept, **method)
    assert losses[0, -1] < 0.7 * losses[0, 0]


@pytest.mark.parametrize(
    "ranks", [(), pytest.param((2,), marks=pytest.mark.long)], ids=["full", "lora"]
)
def test_no_latent_disturbance_is_plain_training(ranks: tuple[int, ...]) -> None:
    none = {"latent_epsilon": [0.0], "latent_layer": [0.0]}
    plain, losses = trained("adamw", [0], ranks, steps=3)
    found, others = trained("adamw", [0], ranks, swept=none, steps=3, **METHODS["latent"])
    np.testing.assert_array_equal(losses, others)
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_latent_disturbance_raises_the_loss_and_more_so_the_larger() -> None:
    """On the first step, whose weights are the same."""
    swept = {"latent_epsilon": [0.0, 0.1, 1.0], "latent_layer": [0, 0, 0]}
    _, losses = trained("adamw", [0, 0, 0], swept=swept, steps=1, **METHODS["latent"])
    assert losses[0, 0] < losses[1, 0] < losses[2, 0]


@pytest.mark.parametrize("steps", [1, 4])
def test_the_worst_disturbance_lies_on_the_ball(steps: int) -> None:
    """Of a loss that grows along one direction at each token, but for one token that is free."""
    shape = (3, 2, 5, WIDTH)
    slopes = np.random.default_rng(0).normal(size=shape[1:]).astype(np.float32)
    slopes[1, 4] = 0
    found = latent.worst(
        lambda d: jnp.sum(d[1] * slopes) + jnp.sum(d[0] * 9),
        shape,
        jnp.float32(1),
        jnp.float32(0.3),
        steps,
    )
    size = np.linalg.norm(found[1], axis=-1)
    lengths = np.linalg.norm(slopes, axis=-1)
    expected = 0.3 * np.sqrt(WIDTH) * (lengths > 0)
    np.testing.assert_allclose(size, expected, rtol=1e-5)
    along = np.sum(found[1] * slopes, axis=-1)
    np.testing.assert_allclose(along, expected * lengths, rtol=1e-5)
    assert not np.asarray(found)[[0, 2]].any()
