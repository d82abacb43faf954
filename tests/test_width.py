"""How many runs share a device: what fits, and that it is compiled once."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from tiny import TINY
from weights import placed_weights

from jaxorg import optimizers
from jaxorg.engine.cohort import CHUNK_STEPS, Trainer
from jaxorg.engine.mesh import make_mesh, parse
from jaxorg.engine.run import width
from jaxorg.engine.step import batch_shapes, draws
from jaxorg.llama.lora import LoraConfig
from jaxorg.planning.signature import ModelSignature, Signature

FULL = Signature(ModelSignature(TINY), 12, 2, "adamw", "constant")
ADAPTERS = ModelSignature(TINY, LoraConfig(2), shared_frozen=True, dtype="bfloat16")
KINDS = {
    "full": FULL,
    "packed": replace(FULL, packing=True),
    "bf16 state": replace(FULL, state_dtype="bfloat16"),
    "adapters of one base": replace(FULL, model=ADAPTERS),
    "adapters of several": replace(FULL, model=replace(ADAPTERS, shared_frozen=False)),
}
QUICK = ("full",)
ROOM = 100


@pytest.mark.parametrize(
    ("most", "a_run", "beside", "chosen", "compiled"),
    [
        (1, 500, 0, 1, []),  # there is no choice
        (17, 5, 10, 17, [17]),
        (100, 1, 20, 50, [100, 50]),  # two groups of one size rather than 83 and 17
        (9, 30, 30, 2, [9, 3, 2]),  # what does not grow with the runs makes the first guess low
        (5, 30, 45, 1, [5, 2]),
        (5, 99, 90, 1, [5]),  # alone, even where that does not fit
    ],
)
def test_as_many_runs_as_fit_in_groups_of_one_size(
    most: int, a_run: int, beside: int, chosen: int, compiled: list[int]
) -> None:
    asked: list[int] = []

    def needed(wide: int) -> int:
        asked.append(wide)
        return beside + wide * a_run

    assert width.fitting(needed, most, ROOM) == chosen
    assert asked == compiled


def test_what_the_compiler_gives_up_is_halved() -> None:
    assert width.fitting(lambda wide: None if wide > 4 else 10, 16, ROOM) == 4


def test_an_accelerator_takes_all_runs_or_as_many_as_have_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chips = SimpleNamespace(local_devices=[SimpleNamespace(platform="gpu")], shape={"run": 2})
    mesh = cast(Mesh, chips)
    monkeypatch.setattr(width, "device_memory", lambda *_: round(ROOM / width.ROOM))
    monkeypatch.setattr(width, "Trainer", lambda signature, mesh, wide: wide)
    monkeypatch.setattr(width, "_needed", lambda wide: 10 * wide)
    assert width.auto_width(FULL, mesh, 1) == 1
    assert width.auto_width(FULL, mesh, 19) == 10  # on either of two places
    assert width.auto_width(FULL, mesh, 22) == 6  # 11 have no room; two groups of one size


def test_a_cpu_trains_one_run_a_core() -> None:
    assert width.auto_width(FULL, make_mesh(parse("cpu-2")), 24) == 1


@pytest.mark.parametrize(
    "signature",
    [
        pytest.param(signature, id=name, marks=() if name in QUICK else pytest.mark.long)
        for name, signature in KINDS.items()
    ],
)
def test_what_is_compiled_to_see_what_it_needs_is_what_trains(
    signature: Signature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh, kept = make_mesh(parse("cpu-2")), Counter[str]()
    needed = width._needed(Trainer(signature, mesh, 3))
    trainer = Trainer(signature, mesh, 3)
    state = jax.tree.leaves(trainer.abstract_state)
    assert needed is not None and needed > 3 * sum(
        leaf.size * leaf.dtype.itemsize for leaf in state
    )
    steps = trainer.place_shared((np.int32(0), np.int32(1), np.int32(CHUNK_STEPS)))
    arguments = *beginning(trainer), *steps

    def note(name: str, **_: object) -> None:
        kept[name] += 1

    jax.monitoring.register_event_listener(note)
    try:
        trainer.train(*arguments)
    finally:
        jax.monitoring.unregister_event_listener(note)
    assert kept["/jax/compilation_cache/cache_hits"] == 1
    assert kept["/jax/compilation_cache/cache_misses"] == 0


def beginning(trainer: Trainer) -> tuple[object, ...]:
    """What a trainer's first call takes, of runs that are all alike."""
    signature, lanes = trainer.signature, trainer.lanes
    own = {**optimizers.FAMILIES[signature.optimizer].defaults, "clip": 1.0, "warmup": 0.0}
    own |= {"learning_rate": 1e-3} | (
        {"lora_rank": 2, "lora_scale": 1} if signature.model.lora else {}
    )
    keys = trainer.place(jax.random.split(jax.random.key(0), lanes))
    hyper = trainer.place({name: np.full(lanes, value, np.float32) for name, value in own.items()})
    hyper |= {"key": keys} if draws(signature) else {}
    state, frozen = trainer.begin(keys, hyper, placed_weights(trainer, [0] * lanes))
    batch = jax.tree.map(
        lambda one: np.ones((lanes, CHUNK_STEPS, *one.shape), one.dtype), batch_shapes(signature)
    )
    return frozen, hyper, state, trainer.place_rows(batch, 2)
