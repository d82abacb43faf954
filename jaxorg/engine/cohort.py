"""Stacks runs: the one place that puts a leading `run` axis before a single run's functions.

A program serves `lanes` runs at a time: the mesh's `run` axis times the width, which is how many
runs one device trains side by side. A cohort of any number of runs passes through it in groups
of that many, so one compiled program serves every cohort of its signature.

Every function is `shard_map` over `run` around `vmap` over the width, so no collective can cross
runs, and each device works on its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxorg import optimizers
from jaxorg.engine import step as one
from jaxorg.engine.step import Batch, Scores, State, Tree
from jaxorg.llama.generate import generate
from jaxorg.signature import ModelStatic, Static

CHUNK = 64  # most steps in one call; the number actually taken is an argument of the program

PER_RUN, SHARED = 0, None


class Stack:
    """Lanes of runs on a mesh, and the way to lay one run's functions over them.

    All arrays that go in or come out carry a leading axis of `lanes` runs, but for those marked
    shared.
    """

    def __init__(self, model: ModelStatic, mesh: Mesh, width: int):
        self.model = model
        self.mesh = mesh
        self.lanes: int = mesh.shape["run"] * width
        self.graph, self.trainable, self.frozen = one.abstract_model(model)
        self._frozen_axis = SHARED if model.shared_frozen else PER_RUN

    def place(self, tree: Tree) -> Tree:
        """Host arrays with a leading run axis, laid out over the mesh."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec("run")))

    def place_shared(self, tree: Tree) -> Tree:
        """Host arrays that every run sees, on every device."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def _stack(
        self,
        function: Callable[..., Any],
        axes: tuple[int | None, ...],
        donate: tuple[int, ...] = (),
    ) -> Callable[..., Any]:
        """Prepend the run axis to `function`, and lay it over the mesh."""
        specs = tuple(PartitionSpec("run") if a == PER_RUN else PartitionSpec() for a in axes)
        mapped = jax.shard_map(
            jax.vmap(function, in_axes=axes),
            mesh=self.mesh,
            in_specs=specs,
            out_specs=PartitionSpec("run"),
            axis_names={"run"},
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donate)


class Scorer(Stack):
    """Measures stacked runs. One program a model serves every optimizer."""

    @cached_property
    def score(self) -> Callable[[Tree, Tree, Batch], Scores]:
        """`score(trainable, frozen, batch)`: teacher-forced scores, [run, B] each."""
        axes = (PER_RUN, self._frozen_axis, PER_RUN)
        return self._stack(partial(one.score, self.graph), axes)

    @cache  # noqa: B019 - programs live as long as the process
    def generator(self, new_tokens: int, end_ids: tuple[int, ...]) -> Callable[..., jax.Array]:
        """`(trainable, frozen, prompts, lengths, keys, temperature)` to tokens [run, B, M]."""
        function = partial(generate, self.graph, new_tokens=new_tokens, end_ids=end_ids)
        axes = (PER_RUN, self._frozen_axis, PER_RUN, PER_RUN, PER_RUN, SHARED)
        return self._stack(function, axes)


class Trainer(Stack):
    """Trains stacked runs of one static signature."""

    def __init__(self, static: Static, mesh: Mesh, width: int):
        super().__init__(static.model, mesh, width)
        self.static = static

    @cached_property
    def initialise(self) -> Callable[[jax.Array], Tree]:
        """Fresh full weights from one random key a run."""
        model = replace(self.model, lora=None)

        def fresh(key: jax.Array) -> Tree:
            return one.split(model, one.create(model, key))[1]

        return self._stack(fresh, (PER_RUN,))

    def begin(self, keys: jax.Array, hyper: optimizers.Hyper, weights: Tree) -> tuple[State, Tree]:
        """The state before the first step and the frozen weights, from full weights."""
        return self._begin(keys, hyper, weights), weights if self.model.lora else {}

    @cached_property
    def _begin(self) -> Callable[[jax.Array, optimizers.Hyper, Tree], State]:
        def begin(key: jax.Array, hyper: optimizers.Hyper, weights: Tree) -> State:
            if self.model.lora is None:
                return one.initial(self.static, hyper, weights)
            adapters = one.split(self.model, one.create(self.model, key))[1]
            return one.initial(self.static, hyper, adapters)

        return self._stack(begin, (PER_RUN, PER_RUN, self._frozen_axis))

    @cached_property
    def train(self) -> Callable[..., tuple[State, jax.Array]]:
        """`train(frozen, hyper, state, batches, start, count, total)`: `count` steps from step
        `start` of `total`. Batches carry axes [run, CHUNK, B]; losses come as [run, CHUNK], of
        which the first `count` are meant. Weights are checked when a call ends at a multiple of
        CHUNK or at `total`, so no call should run past a multiple of it. The state passed in is
        consumed.
        """

        def chunk(
            frozen: Tree,
            hyper: optimizers.Hyper,
            state: State,
            batches: Batch,
            start: jax.Array,
            count: jax.Array,
            total: jax.Array,
        ) -> tuple[State, jax.Array]:
            def body(i: jax.Array, carry: tuple[State, jax.Array]) -> tuple[State, jax.Array]:
                state, losses = carry
                batch = jax.tree.map(lambda x: x[i], batches)
                state, loss = one.train_step(
                    self.static, self.graph, frozen, hyper, state, batch, start + i, total
                )
                return state, losses.at[i].set(loss)

            state, losses = jax.lax.fori_loop(0, count, body, (state, jnp.zeros(CHUNK)))
            end = start + count
            due = (end % CHUNK == 0) | (end == total)
            return one.check_weights(state, end - 1, due), losses

        axes = (self._frozen_axis, PER_RUN, PER_RUN, PER_RUN, SHARED, SHARED, SHARED)
        return self._stack(chunk, axes, donate=(2,))


def stack(trees: list[Tree]) -> Tree:
    """Trees of host arrays side by side on a leading run axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
