"""Stacks runs: the one place that puts a leading `run` axis before a single run's functions.

A program serves `lanes` runs at a time: the mesh's `run` axis times the width, which is how many
runs one device trains side by side. A cohort of any number of runs passes through it in groups
of that many, so one compiled program serves every cohort of its signature.

Where a run has one device, every function is `shard_map` over `run` around `vmap` over the width,
so no collective can cross runs, and each device works on its own. Where `fsdp` and `tensor` spread
a run over several, `vmap` gives the run axis to the mesh's `run`, and the compiler splits the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int, Key

from jaxorg import optimizers
from jaxorg.config import marked
from jaxorg.engine import arrays, sharding
from jaxorg.engine import score as scoring
from jaxorg.engine import step as one
from jaxorg.engine.batch import AnyBatch, B, Batch, Completions
from jaxorg.engine.params import Params, Tree, abstract_model, create, split
from jaxorg.engine.step import State, StepLog
from jaxorg.llama import lora
from jaxorg.llama.generate import Asked, generate
from jaxorg.llama.model import Cache
from jaxorg.planning.signature import ModelSignature, Signature
from jaxorg.storage import weight_reader
from jaxorg.storage.weight_reader import WeightReader
from jaxorg.sweepfile.training import Lora, Training

CHUNK_STEPS = 64  # most steps in one call; the number actually taken is an argument of the program

PER_RUN, SHARED = 0, None
LANE = "lane"  # the axis of the runs that a device trains side by side
SWEPT = tuple(marked(Training, "swept"))  # besides the optimizer's own hyperparameters
SWEPT_LORA = tuple(marked(Lora, "swept"))


class Passes(NamedTuple):
    """Two programs by which completions are scored, each stacked."""

    prefill: Callable[..., Cache]
    """`prefill(params, prompts)`: prompts [run, G, P] as what goes on from them sees them."""
    score: Callable[..., scoring.Scores]
    """`score(params, prefix, completions)`: teacher-forced scores [run, R] each."""


class Stack:
    """Lanes of runs on a mesh, and the way to lay one run's functions over them.

    All arrays that go in or come out carry a leading axis of `lanes` runs, but for those marked
    shared. `fsdp` and `tensor` split what belongs to one run; the compiler sees to these.
    """

    def __init__(self, model: ModelSignature, mesh: Mesh, width: int):
        self.model = model
        self.mesh = mesh
        self.lanes: int = mesh.shape["run"] * width
        self.graph, self.params = abstract_model(model)
        self._specs = sharding.model_specs(model, mesh)
        self._frozen_axis = SHARED if model.shared_frozen else PER_RUN
        self._params_axes = Params(PER_RUN if model.lora else self._frozen_axis, self._frozen_axis)
        self._weights_specs = self._specs.frozen if model.lora else self._specs.trainable

    def place(self, tree: Tree) -> Tree:
        """Host arrays with a leading run axis, each run's on all of its devices."""
        return arrays.put(tree, NamedSharding(self.mesh, sharding.RUN))

    def place_shared(self, tree: Tree) -> Tree:
        """Host arrays that belong to all runs, on all devices."""
        return arrays.put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def place_rows(self, rows: Tree, rows_at: int = 1) -> Tree:
        """Host arrays of all runs, whose axis `rows_at` counts rows, split over a run's devices."""
        spec = self._batch_spec(jax.tree.leaves(rows)[0].shape[1 : rows_at + 1])
        return arrays.put(rows, NamedSharding(self.mesh, spec))

    def place_weights(self, readers: Sequence[WeightReader]) -> Tree:
        """Full weights, from one reader a lane, or a single one where all runs share them. What
        training does not change is kept in the precision that it is used in."""
        shapes, dtype = self.params.trainable, jnp.dtype(jnp.float32)
        if self.model.lora:
            shapes = self.params.frozen
        if self.model.lora or self.model.shared_frozen:
            dtype = jnp.dtype(self.model.dtype)
        shapes = jax.tree.map(lambda leaf: leaf.update(dtype=dtype), shapes)
        shardings = self._laid(self._weights_specs, self._frozen_axis)
        if self._frozen_axis is SHARED:
            return weight_reader.placed(readers[0], shapes, shardings)
        return weight_reader.stacked(readers, shapes, shardings)

    def _laid(self, specs: Tree, axis: int | None) -> Tree:
        """The shardings of arrays that belong to each run, or to all."""
        lay = sharding.stacked if axis == PER_RUN else sharding.shared
        return lay(self.mesh, specs)

    def _stack(
        self,
        function: Callable[..., Any],
        axes: tuple[int | Params | None, ...],
        donate: tuple[int, ...] = (),
        out: Any = None,
    ) -> Callable[..., Any]:
        """Prepend the run axis to `function`, and lay it over the mesh; `axes` are PER_RUN or
        SHARED for each argument or part of it, `out` the shardings of its results, None where the
        compiler may choose."""
        if self.mesh.shape["run"] == self.mesh.size:
            specs = jax.tree.map(_run_spec, axes, is_leaf=_is_shared)
            stacked = jax.shard_map(
                jax.vmap(function, in_axes=axes, axis_name=LANE),
                mesh=self.mesh,
                in_specs=specs,
                out_specs=PartitionSpec("run"),
                axis_names={"run"},
                check_vma=False,
            )
        else:
            # XLA's partitioner aborts where a shard_map over `run` alone stands around arrays that
            # two more axes split ("Check failed: … num_devices_per_group"), with jaxlib 0.10.2.
            mapped = jax.vmap(function, in_axes=axes, axis_name=LANE, spmd_axis_name="run")

            def stacked(*arguments: Any) -> Any:
                with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                    return mapped(*arguments)

        return jax.jit(stacked, donate_argnums=donate, out_shardings=out)

    def _abstract_params(self) -> Params:
        """The parameters of all lanes, as shapes and where they lie; frozen ones in the precision
        of their use."""
        trainable = self._laid(self._specs.trainable, PER_RUN)
        frozen = self._laid(self._specs.frozen, self._frozen_axis)
        lead = () if self._frozen_axis is SHARED else (self.lanes,)
        return Params(
            _abstract(self.params.trainable, trainable, (self.lanes,)),
            _abstract(self.params.frozen, frozen, lead, jnp.dtype(self.model.dtype)),
        )

    def _abstract_batch(self, lead: tuple[int, ...], batch: B) -> B:
        """The rows of all lanes, for `lead` calls; `batch` is of one run and call."""
        rows = NamedSharding(self.mesh, self._batch_spec((*lead, batch.tokens.shape[0])))
        placed: B = _abstract(batch, jax.tree.map(lambda _: rows, batch), (self.lanes, *lead))
        return placed

    def _batch_spec(self, rows: tuple[int, ...]) -> PartitionSpec:
        whole = [None] * (len(rows) - 1)
        return PartitionSpec("run", *whole, *sharding.batch_spec(self.mesh, rows[-1]))

    def _abstract_array(
        self, shape: tuple[int, ...], dtype: Any, spec: PartitionSpec
    ) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(self.mesh, spec))


class Scorer(Stack):
    """Measures stacked runs, adapters as they are used (`lora.scaled`). One program a model serves
    every optimizer."""

    def __init__(self, model: ModelSignature, mesh: Mesh, width: int):
        super().__init__(model, mesh, width)
        self.generator = cache(self._generator)

    @cached_property
    def passes(self) -> Passes:
        """What reads prompts and scores completions of them, and takes the models' parameters."""
        return self._passes(self._params_axes)

    @cached_property
    def own_passes(self) -> Passes:
        """The same where runs share no weights."""
        return self.passes if self._frozen_axis == PER_RUN else self._passes(Params(0, 0))

    @cached_property
    def noisy_passes(self) -> Passes:
        """The same in noise on activations: each takes a draw a prompt [run, G] and a scale,
        too."""
        noise = (PER_RUN, SHARED)
        read, scored = scoring.prefill_in_noise, scoring.score_in_noise
        return self._passes(self._params_axes, read, scored, noise)

    def _passes(
        self,
        params: Params,
        read: Callable[..., Any] = scoring.prefill,
        scored: Callable[..., Any] = scoring.score,
        noise: tuple[int | None, ...] = (),
    ) -> Passes:
        given = (params, PER_RUN, *noise)
        lie = NamedSharding(self.mesh, self._prefix_spec)
        return Passes(
            self._stack(partial(read, self.graph), given, out=lie),
            self._stack(partial(scored, self.graph), (params, PER_RUN, PER_RUN, *noise)),
        )

    @property
    def _prefix_spec(self) -> PartitionSpec:
        """How prompts that were read are split [run, L, G, P, K, H]."""
        tensor = self.mesh.shape["tensor"]
        heads = "tensor" if self.model.config.num_key_value_heads % tensor == 0 else None
        return PartitionSpec("run", None, "fsdp", None, heads)

    @cached_property
    def shaken(self) -> Callable[..., Params]:
        """`shaken(params, keys, scale)`: weights with noise on all matrices but adapters, each
        run's its own, for `own_passes`."""
        out = self._laid(self._specs, PER_RUN)
        return self._stack(scoring.shaken, (self._params_axes, PER_RUN, SHARED), out=out)

    @cached_property
    def residuals(self) -> Callable[..., jax.Array]:
        """`residuals(params, prompts, lengths)`: the residual stream after each block at the last
        token of each prompt [run, L, G, D]."""
        axes = (self._params_axes, PER_RUN, PER_RUN)
        return self._stack(partial(scoring.residuals, self.graph), axes)

    @cached_property
    def log_probs(self) -> Callable[[Params, Batch], jax.Array]:
        """`log_probs(params, batch)`: of each token of the completions, zero elsewhere
        [run, B, T - 1]."""
        function = partial(scoring.completion_log_probs, self.graph, axis=LANE)
        return self._stack(function, (self._params_axes, PER_RUN))

    def _generator(self, new_tokens: int, end_ids: tuple[int, ...]) -> Callable[..., jax.Array]:
        """`(params, prefix, rows, keys, temperature)` to tokens [run, R, M]."""
        function = partial(generate, self.graph, new_tokens=new_tokens, end_ids=end_ids, axis=LANE)
        return self._stack(function, (self._params_axes, PER_RUN, PER_RUN, PER_RUN, SHARED))

    def abstract_prefill(self, prompts: int, tokens: int) -> tuple[Any, ...]:
        """What `passes.prefill` takes, as shapes and where they lie."""
        spec = self._batch_spec((prompts,))
        shape = (self.lanes, prompts, tokens)
        return self._abstract_params(), self._abstract_array(shape, jnp.int32, spec)

    def abstract_score(self, prompts: int, tokens: int, rows: int, count: int) -> tuple[Any, ...]:
        """What `passes.score` takes, as shapes and where they lie.

        Args:
            prompts: that were read.
            tokens: of a prompt.
            rows: completions.
            count: tokens of a completion.
        """
        spec = self._batch_spec((rows,))
        shapes = Completions((), (), (count + 1,), ())
        given = (self._abstract_array((self.lanes, rows, *s), jnp.int32, spec) for s in shapes)
        return self._abstract_params(), self._abstract_prefix(prompts, tokens), Completions(*given)

    def abstract_generate(self, prompts: int, tokens: int, rows: int) -> tuple[Any, ...]:
        """What a `generator` takes of `rows` answers to `prompts` prompts of `tokens` tokens."""
        key = jax.eval_shape(lambda: jax.random.key(0)).dtype
        *asked, keys = (
            self._abstract_array((self.lanes, rows), dtype, sharding.RUN)
            for dtype in (*[jnp.int32] * len(Asked._fields), key)
        )
        temperature = self._abstract_array((rows,), jnp.float32, PartitionSpec())
        prefix = self._abstract_prefix(prompts, tokens)
        return self._abstract_params(), prefix, Asked(*asked), keys, temperature

    def _abstract_prefix(self, prompts: int, tokens: int) -> Cache:
        config = self.model.config
        heads = (config.num_key_value_heads, config.head_dim)
        shape = (self.lanes, config.num_hidden_layers, prompts, tokens, *heads)
        part: Any = self._abstract_array(shape, jnp.dtype(self.model.dtype), self._prefix_spec)
        return Cache(part, part)


class Trainer(Stack):
    """Trains stacked runs of one signature."""

    def __init__(self, signature: Signature, mesh: Mesh, width: int):
        super().__init__(signature.model, mesh, width)
        self.signature = signature
        trainable, specs = self.params.trainable, self._specs.trainable
        specs = sharding.state_specs(self.abstract_state, trainable, specs)
        self.state_shardings: State = self._laid(specs, PER_RUN)

    @cached_property
    def abstract_state(self) -> State:
        """One run's training state as shapes."""
        return one.abstract_state(self.signature)

    def place_state(self, states: list[State]) -> State:
        """States on the host, one a lane, laid out as training wants them."""
        state: State = arrays.put(stack(states), self.state_shardings)
        return state

    @cached_property
    def initialise(self) -> Callable[[jax.Array], Tree]:
        """Fresh full weights from one random key a run."""
        model = replace(self.model, lora=None)

        def fresh(key: Key[jax.Array, ""]) -> Tree:
            return split(model, create(model, key))[1].trainable

        return self._stack(fresh, (PER_RUN,), out=self._laid(self._weights_specs, PER_RUN))

    def begin(
        self,
        keys: Key[jax.Array, " run"],
        hyper: optimizers.Hyper,
        weights: Tree,
        earlier: Sequence[Tree | None] = (),
    ) -> tuple[State, Tree]:
        """The state before the first step and the frozen weights, from full weights.

        Args:
            keys: of the runs and their phases [run].
            hyper: swept scalars, fp32 [run] each.
            weights: nested dict of full weights, on devices; with a leading run axis, unless runs
                share them.
            earlier: adapters on the host to go on with, one a lane, None where a lane begins fresh
                ones; empty where all do.
        """
        given = None
        if found := [adapters for adapters in earlier if adapters is not None]:
            blank = jax.tree.map(np.zeros_like, found[0])
            adapters = stack([blank if each is None else each for each in earlier])
            there = np.array([each is not None for each in earlier])
            shardings = self.state_shardings.trainable
            given = (self.place(there), arrays.put(adapters, shardings))
        return self._begin(keys, hyper, weights, given), weights if self.model.lora else {}

    @cached_property
    def _begin(self) -> Callable[..., State]:
        def begin(
            key: Key[jax.Array, ""],
            hyper: optimizers.Hyper,
            weights: Tree,
            given: tuple[jax.Array, Tree] | None,
        ) -> State:
            if self.model.lora is None:
                return one.initial(
                    self.signature, hyper, one.changed(self.signature, hyper, key, weights)
                )
            fresh = split(self.model, create(self.model, key))[1].trainable
            adapters = lora.masked(fresh, hyper["lora_rank"])
            if given is not None:
                there, earlier = given
                adapters = jax.tree.map(lambda e, f: jnp.where(there, e, f), earlier, adapters)
            return one.initial(self.signature, hyper, adapters)

        axes = (PER_RUN, PER_RUN, self._frozen_axis, PER_RUN)
        return self._stack(begin, axes, out=self.state_shardings)

    @cached_property
    def train(self) -> Callable[..., tuple[State, StepLog]]:
        """`train(frozen, hyper, state, batches, start, count, total)`: `count` steps from step
        `start` of `total`. Batches carry axes [run, CHUNK_STEPS, B]; what is noted comes as
        [run, CHUNK_STEPS], of which the first `count` are meant. Weights are checked when a call
        ends at a multiple of CHUNK_STEPS or at `total`, so no call should run past a multiple of
        it. The state passed in is consumed.
        """

        def chunk(
            frozen: Tree,
            hyper: optimizers.Hyper,
            state: State,
            batches: AnyBatch,
            start: Int[jax.Array, ""],
            count: Int[jax.Array, ""],
            total: Int[jax.Array, ""],
        ) -> tuple[State, StepLog]:
            def body(i: Int[jax.Array, ""], carry: tuple[State, StepLog]) -> tuple[State, StepLog]:
                state, log = carry
                batch = jax.tree.map(lambda x: x[i], batches)
                about = batch, start + i, total, LANE
                state, now = one.train_step(
                    self.signature, self.graph, frozen, hyper, state, *about
                )
                return state, jax.tree.map(lambda all_, x: all_.at[i].set(x), log, now)

            log = StepLog(*[jnp.zeros(CHUNK_STEPS)] * len(StepLog._fields))
            state, log = jax.lax.fori_loop(0, count, body, (state, log))
            end = start + count
            due = (end % CHUNK_STEPS == 0) | (end == total)
            return one.check_weights(state, end - 1, due), log

        axes = (self._frozen_axis, PER_RUN, PER_RUN, PER_RUN, SHARED, SHARED, SHARED)
        out = (self.state_shardings, NamedSharding(self.mesh, sharding.RUN))
        return self._stack(chunk, axes, donate=(2,), out=out)

    @cached_property
    def evaluated(self) -> Callable[[optimizers.Hyper, State], Tree]:
        """`evaluated(hyper, state)`: the weights to measure, store and go on from."""
        if optimizers.FAMILIES[self.signature.optimizer].evaluated is None:  # then they are no copy
            return lambda _, state: state.trainable
        function = partial(one.evaluated, self.signature)
        return self._stack(function, (PER_RUN, PER_RUN), out=self.state_shardings.trainable)

    def abstract_arguments(self) -> tuple[Any, ...]:
        """What `train` takes, as shapes and where they lie: all that compiling needs."""
        lanes, signature = (self.lanes,), self.signature
        names = [*optimizers.FAMILIES[signature.optimizer].defaults, *SWEPT]
        names += [*signature.swept, *(SWEPT_LORA if self.model.lora else ())]
        hyper = {name: self._abstract_array(lanes, jnp.float32, sharding.RUN) for name in names}
        if one.draws(signature):
            key = jax.eval_shape(lambda: jax.random.key(0)).dtype
            hyper["key"] = self._abstract_array(lanes, key, sharding.RUN)
        state = _abstract(self.abstract_state, self.state_shardings, lanes)
        batch = self._abstract_batch((CHUNK_STEPS,), one.batch_shapes(signature))
        step = self._abstract_array((), jnp.int32, PartitionSpec())
        return self._abstract_params().frozen, hyper, state, batch, step, step, step

    def lowered(self) -> Any:
        """`train` as the compiler takes it."""
        train: Any = self.train
        return train.lower(*self.abstract_arguments())


def _abstract(tree: Tree, shardings: Tree, lead: tuple[int, ...], dtype: Any = None) -> Tree:
    """Abstract arrays with leading axes, each where its sharding says."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct((*lead, *x.shape), dtype or x.dtype, sharding=s),
        tree,
        shardings,
    )


def _is_shared(axis: Any) -> bool:
    return axis is SHARED  # which is no leaf otherwise


def _run_spec(axis: int | None) -> PartitionSpec:
    return PartitionSpec() if axis is SHARED else PartitionSpec("run")


def stack(trees: list[Tree]) -> Tree:
    """Trees of host arrays side by side on a leading run axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
