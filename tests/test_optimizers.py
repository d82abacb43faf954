"""Optimizer families: against plain references, their cadence, and what they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError
from tiny import TINY

from jaxorg import optimizers
from jaxorg.engine.cohort import Trainer
from jaxorg.engine.mesh import make_mesh, parse
from jaxorg.optimizers import factoring, psgd, shampoo, soap
from jaxorg.planning.signature import ModelSignature, Signature
from jaxorg.sweepfile.training import Training

STEPS, REFRESH, LARGEST, RATE = 50, 7, 8, 0.02
KEY = jax.random.key(5)
Array = np.ndarray[Any, Any]


def weights() -> Any:
    """Matrices that have both sides, one side and none; vectors; and stacked layers."""
    rng = np.random.default_rng(0)
    shapes = {"both": (6, 4), "wide": (5, 12), "large": (9, 10), "vector": (7,)}
    flat = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return {**flat, "blocks": {"kernel": rng.normal(size=(2, 6, 5)), "norm": np.ones((2, 3))}}


@cache
def gradient(step: int) -> Any:
    """Gradients whose sides differ in scale; the same for all that ask."""
    rng = np.random.default_rng(100 + step)

    def draw(x: Array) -> Array:
        scales = [np.geomspace(0.3, 3, n) for n in (x.shape[-2:] if x.ndim > 1 else x.shape)]
        across = np.multiply.outer(*scales) if len(scales) > 1 else scales[0]
        found: Array = 1e-2 * across * rng.normal(size=x.shape)
        return found

    return jax.tree.map(draw, weights())


@cache
def drawn(step: int, number: int, shape: tuple[int, ...]) -> Array:
    """The random numbers of a step for the weights of a number."""
    key = jax.random.fold_in(jax.random.fold_in(KEY, step), number)
    return np.asarray(jax.random.normal(key, shape, jnp.float64))


def each(reference: Callable[..., Array]) -> Any:
    """Where a reference takes each weight to, in float64; layers are weights of their own."""

    def moved(number: int, path: tuple[Any, ...], first: Array) -> Array:
        names = [key.key for key in path]

        def at(layer: int | None) -> Array:
            def pick(tree: Any) -> Array:
                for name in names:
                    tree = tree[name]
                return np.array(tree if layer is None else tree[layer])

            def probe(step: int) -> Array:
                whole = drawn(step, number, first.shape)
                return whole if layer is None else np.array(whole[layer])

            grads = [pick(gradient(step)) for step in range(STEPS)]
            return reference(pick(weights()), grads, probe)

        return np.stack([at(0), at(1)]) if names[0] == "blocks" else at(None)

    leaves = jax.tree_util.tree_leaves_with_path(weights())
    return [moved(number, path, leaf) for number, (path, leaf) in enumerate(leaves)]


def adam(m: Array, v: Array, count: int, b1: float, b2: float) -> Array:
    found: Array = (m / (1 - b1**count)) / (np.sqrt(v / (1 - b2**count)) + 1e-8)
    return found


def grams(g: Array) -> dict[int, Array]:
    """The statistics of the sides that get any."""
    if g.ndim < 2:
        return {}
    return {i: s for i, s in enumerate((g @ g.T, g.T @ g)) if len(s) <= LARGEST}


def both_sides(g: Array, sides: dict[int, Array]) -> Array:
    """L g R."""
    g = sides[0] @ g if 0 in sides else g
    return g @ sides[1] if 1 in sides else g


def decay(w: Array) -> Array:
    return 0.1 * w if w.ndim > 1 else 0 * w


def plain_soap(w: Array, grads: list[Array], _: Any) -> Array:
    b1, b2 = 0.9, 0.95
    m, v = 0 * w, 0 * w
    stats = {i: 0 * s for i, s in grams(w).items()}
    bases = {i: np.eye(len(s)) for i, s in stats.items()}
    for step, g in enumerate(grads):
        if step:
            into = {i: q.T if i == 0 else q for i, q in bases.items()}
            back = {i: q if i == 0 else q.T for i, q in bases.items()}
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * both_sides(g, into) ** 2
            move = both_sides(adam(both_sides(m, into), v, step, b1, b2), back)
            w = w - RATE * (move + decay(w))
        else:
            w = w - RATE * decay(w)
        for i, s in grams(g).items():
            stats[i] = b2 * stats[i] + (1 - b2) * s
            if step % REFRESH == 0:
                for _ in range(1 if step else soap.BEGINNING):
                    turned = stats[i] + soap.DAMPING * np.trace(stats[i]) * np.eye(len(s))
                    bases[i] = np.linalg.qr(turned @ bases[i])[0]
    return w


def plain_shampoo(w: Array, grads: list[Array], _: Any) -> Array:
    b1, b2, ridge = 0.9, 0.95, 1e-4
    m, v = 0 * w, 0 * w
    stats = {i: 0 * s for i, s in grams(w).items()}
    roots: dict[int, Array] = {}
    for step, g in enumerate(grads):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        for i, s in grams(g).items():
            stats[i] = b2 * stats[i] + (1 - b2) * s
            if step % REFRESH == 0:
                values, vectors = np.linalg.eigh(stats[i])
                values = (values + ridge * values.sum()) ** (-1 / (2 * len(stats)))
                roots[i] = vectors @ np.diag(values) @ vectors.T
        move = adam(m, v, step + 1, b1, b2)
        if roots:
            direction = both_sides(m, roots)
            move = direction * np.linalg.norm(move) / np.linalg.norm(direction)
        w = w - RATE * (move + decay(w))
    return w


def plain_psgd(w: Array, grads: list[Array], probe: Callable[[int], Array]) -> Array:
    """Every factor as a full matrix, also where the family keeps a diagonal."""
    b1, rate, eps = 0.9, 0.1, 1e-8
    shape, vector = w.shape, w.ndim < 2
    sides = [0] if vector else [0, 1]
    m = np.zeros((len(w), 1) if vector else shape)
    full = {i: not vector and m.shape[i] <= LARGEST for i in sides}
    q = {i: np.eye(m.shape[i]) for i in sides}

    def apply(x: Array, a: dict[int, Array]) -> Array:
        return both_sides(x, {i: s if i == 0 else s.T for i, s in a.items()})

    for step, g in enumerate(grads):
        m = b1 * m + (1 - b1) * g.reshape(m.shape)
        mean = m / (1 - b1 ** (step + 1))
        if step % REFRESH == 0:
            noise = probe(step).reshape(m.shape)
            x = mean + eps * noise
            if step == 0:
                scale = np.mean(x**2) ** (-1 / (4 * len(sides)))
                q = {i: scale * f for i, f in q.items()}
            a, b = apply(x, q), apply(noise, {i: np.linalg.inv(f).T for i, f in q.items()})
            for i in sides:
                t1, t2 = (y @ y.T if i == 0 else y.T @ y for y in (a, b))
                if full[i]:
                    bound = np.sum(np.linalg.eigvalsh(t1 + t2) ** 4) ** 0.25
                    change = np.triu(t1 - t2)
                else:
                    bound = np.max(np.diag(t1 + t2))
                    change = np.diag(np.diag(t1 - t2))
                q[i] = q[i] - rate / bound * change @ q[i]
        move = apply(mean, {i: f.T @ f for i, f in q.items()})
        move = move * min(1.0, psgd.LIMIT / np.sqrt(np.mean(move**2)))
        w = w - RATE * (move.reshape(shape) + decay(w))
    return w


CASES: dict[str, tuple[Callable[..., Any], Callable[..., Array], dict[str, float]]] = {
    "soap": (soap.build, plain_soap, {"b1": 0.9, "b2": 0.95, "eps": 1e-8}),
    "shampoo": (shampoo.build, plain_shampoo, {"b1": 0.9, "b2": 0.95, "eps": 1e-8, "ridge": 1e-4}),
    "psgd": (psgd.build, plain_psgd, {"b1": 0.9, "rate": 0.1, "eps": 1e-8}),
}


@pytest.mark.parametrize("family", CASES)
def test_it_equals_a_plain_reference(family: str) -> None:
    """To 1e-5 after 50 steps, on matrices, vectors and stacked layers."""
    build, reference, own = CASES[family]
    assert {*own, "weight_decay"} == set(optimizers.FAMILIES[family].defaults)
    with jax.enable_x64(True):
        hyper = {**own, "weight_decay": 0.1, "learning_rate": RATE}

        @jax.jit
        def move(params: Any, state: Any, grads: Any, step: jax.Array) -> Any:
            now = {"step": step, "due": step % REFRESH == 0, "key": jax.random.fold_in(KEY, step)}
            transformation = build({**hyper, **now}, LARGEST)
            updates, state = transformation.update(grads, state, params)
            return jax.tree.map(jnp.add, params, updates), state

        params = jax.tree.map(jnp.asarray, weights())
        state = jax.tree.map(lambda x: x.astype(jnp.float64), build(hyper, LARGEST).init(params))
        for step in range(STEPS):
            params, state = move(params, state, gradient(step), jnp.int32(step))
        for found, wanted in zip(jax.tree.leaves(params), each(reference), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1, 45])
def test_factors_equal_those_of_numpy(size: int) -> None:
    rng = np.random.default_rng(size)
    x = rng.normal(size=(2, size, size)) + 2 * np.eye(size)
    with jax.enable_x64(True):
        found = factoring.orthonormal(jnp.asarray(x))
        roots = factoring.inverse_fourth_root(jnp.asarray(x @ np.swapaxes(x, 1, 2)))
        divided = factoring.inverse_transposed(jnp.asarray(np.triu(x)))
    q, r = np.linalg.qr(x)
    signs = np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None]
    np.testing.assert_allclose(found, q * signs, atol=1e-9)
    fourth = np.linalg.matrix_power(np.asarray(roots), 4)
    np.testing.assert_allclose(fourth @ x @ np.swapaxes(x, 1, 2), [np.eye(size)] * 2, atol=1e-6)
    turned = np.swapaxes(np.triu(x), 1, 2)
    np.testing.assert_allclose(turned @ np.asarray(divided), [np.eye(size)] * 2, atol=1e-6)


DEAR = {  # what is done at a renewal only, by the names of compiled functions and primitives
    "soap": "orthonormal",
    "shampoo": "inverse_fourth_root",
    "psgd": "inverse_transposed",
    "sophia": "_gumbel",
}


def calls(jaxpr: Any, inside: bool = False) -> Iterator[tuple[str, bool]]:
    """Every operation and named function, and whether it stands inside a `cond`."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        yield str(equation.params.get("name", name)), inside
        for inner in jax.core.jaxprs_in_params(equation.params):
            yield from calls(inner, inside or name == "cond")


def trainer(
    family: str, mesh: str = "cpu-2", width: int = 2, refresh: int | None = None
) -> Trainer:
    signature = Signature(ModelSignature(TINY), 12, 4, family, "constant", refresh=refresh)
    return Trainer(signature, make_mesh(parse(mesh)), width)


@pytest.mark.parametrize(
    ("family", "mesh"), [*((name, "cpu-2") for name in DEAR), ("soap", "run=1,fsdp=2")]
)
def test_what_is_dear_is_done_at_renewals_only(family: str, mesh: str) -> None:
    """In the program of stacked runs, under `shard_map` and beside `fsdp`."""
    one = trainer(family, mesh)
    found = set(calls(jax.make_jaxpr(one.train)(*one.abstract_arguments()).jaxpr))
    assert (DEAR[family], True) in found
    assert (DEAR[family], False) not in found
    assert not {"eigh", "qr", "householder_product", "cholesky", "triangular_solve"} & {
        name for name, _ in found
    }


SECOND = [name for name, f in optimizers.FAMILIES.items() if {"b2", "eps"} <= {*f.defaults}]


def test_every_family_that_renews_is_looked_at() -> None:
    assert set(DEAR) == {name for name, f in optimizers.FAMILIES.items() if f.refresh}


@pytest.mark.parametrize("family", SECOND)
def test_hyperparameters_stay_fp32_beside_bfloat16_weights(family: str) -> None:
    """A second moment with b2 = 0.999 takes in a thousandth of a squared gradient; 1.0 in bfloat16
    would take in nothing."""
    own = {**optimizers.FAMILIES[family].defaults, "b2": 0.999, "learning_rate": 1e-3}
    hyper = {name: jnp.float32(value) for name, value in own.items()}
    params = {"w": jnp.ones((4, 4), jnp.bfloat16)}
    grads = {"w": jnp.full((4, 4), 0.5, jnp.bfloat16)}

    def sampled(_: jax.Array) -> Any:
        return grads, jnp.float32(1)

    state = optimizers.build(family, {**hyper, "learning_rate": 0.0}).init(params)
    for step in range(2):  # SOAP does not move at first
        now = {"step": jnp.int32(step), "due": jnp.bool_(True), "key": KEY}
        transformation = optimizers.build(family, {**hyper, **now})
        state = jax.tree.map(lambda x: x.astype(jnp.float32) if x.ndim else x, state)
        _, state = transformation.update(grads, state, params, sampled=sampled)
    name = {"sophia": "curvature", "prodigy": "exp_avg_sq"}.get(family, "nu")
    second = float(np.sum(np.asarray(optax_get(state, name)["w"], np.float64)))
    scale = own["start"] ** 2 if family == "prodigy" else 1.0
    terms = 1 if family == "soap" else 2
    assert second == pytest.approx(16 * 0.25 * terms * 1e-3 * scale, rel=0.01)


def optax_get(state: Any, name: str) -> Any:
    """The part of a state that has a name."""
    found = [v for v in jax.tree.leaves(state, is_leaf=partial(_has, name)) if _has(name, v)]
    return getattr(found[0], name)


def _has(name: str, value: Any) -> bool:
    return hasattr(value, "_fields") and name in value._fields


def test_sgd_without_momentum_is_plain() -> None:
    hyper = {"momentum": jnp.float32(0.0), "learning_rate": jnp.float32(0.1)}
    family = optimizers.build("sgd", hyper)
    params = {"w": jnp.ones((2, 2))}
    state = family.init(params)
    for step in range(3):
        grads = {"w": jnp.full((2, 2), 1.0 + step)}
        updates, state = family.update(grads, state, params)
        np.testing.assert_array_equal(updates["w"], -jnp.float32(0.1) * grads["w"])


def test_schedule_free_is_measured_at_its_average() -> None:
    """The weighted mean of the fast points: with a constant rate, their plain mean."""
    own = {**optimizers.FAMILIES["schedule_free"].defaults, "learning_rate": 0.05}
    family, evaluated = optimizers.build("schedule_free", own), optimizers.FAMILIES["schedule_free"]
    assert evaluated.evaluated is not None
    params = {"w": jnp.ones((3, 2))}
    state, fast = family.init(params), []
    for step in range(20):
        grads = {"w": jax.random.normal(jax.random.key(step), (3, 2))}
        updates, state = family.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        fast.append(np.asarray(state.z["w"], np.float64))
    average = evaluated.evaluated(params, state, own)["w"]
    np.testing.assert_allclose(average, np.mean(fast, axis=0), atol=1e-5)
    assert np.abs(average - params["w"]).max() > 1e-3


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"optimizer": "adamw", "refresh": 5}, "adamw has none; leave it out"),
        ({"optimizer": "soap", "refresh": 0}, "greater than 0"),
        ({"optimizer": "prodigy", "state_dtype": "bfloat16"}, "prodigy needs float32"),
        ({"optimizer": "schedule_free", "state_dtype": "bfloat16"}, "needs float32"),
    ],
)
def test_what_a_family_cannot_do_is_refused(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Training.model_validate({"steps": 1, "learning_rate": 1.0, **keys})


def test_a_refresh_that_is_not_given_is_in_no_name() -> None:
    train = {"steps": 1, "learning_rate": 1.0, "optimizer": "soap"}
    told = Training.model_validate(train).model_dump()
    assert "refresh" not in told
    assert Training.model_validate({**train, "refresh": 3}).model_dump() == {**told, "refresh": 3}
