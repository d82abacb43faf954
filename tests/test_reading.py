"""Weights that are read part by part."""

from typing import Any

import jax
import numpy as np
import pytest
from tiny import TINY
from weights import held, random_weights

from jaxorg.engine.cohort import Scorer
from jaxorg.engine.mesh import make_mesh, parse
from jaxorg.llama.lora import LoraConfig
from jaxorg.llama.lora import folded as fold
from jaxorg.planning.signature import ModelSignature
from jaxorg.storage.weight_reader import Bounds, Names, WeightReader

LORA = LoraConfig(rank=2, targets=("q", "down"))


def counted(read: WeightReader, calls: list[tuple[Names, Bounds]]) -> WeightReader:
    def reads(names: Names, bounds: Bounds, dtype: np.dtype) -> np.ndarray:
        calls.append((names, bounds))
        return read(names, bounds, dtype)

    return reads


@pytest.mark.parametrize(
    ("mesh", "width"), [("run=2", 1), ("run=2", 2), ("run=1,fsdp=2", 2), ("run=1,tensor=2", 3)]
)
def test_stacked_runs_hold_what_each_of_them_reads(mesh: str, width: int) -> None:
    scorer = Scorer(ModelSignature(TINY), make_mesh(parse(mesh)), width)
    weights = [random_weights(ModelSignature(TINY), seed)[0] for seed in range(scorer.lanes)]
    placed = scorer.place_weights([held(each) for each in weights])
    for lane, each in enumerate(weights):
        jax.tree.map(
            lambda x, y, lane=lane: np.testing.assert_array_equal(x[lane], y), placed, each
        )


def test_what_runs_share_is_read_once() -> None:
    scorer = Scorer(ModelSignature(TINY), make_mesh(parse("run=2")), 2)
    weights: Any = random_weights(ModelSignature(TINY))[0]
    calls: list[tuple[Names, Bounds]] = []
    one = counted(held(weights), calls)
    scorer.place_weights([one] * 4)
    assert len(calls) == len(jax.tree.leaves(weights))
    calls.clear()
    scorer.place_weights([one, held(weights), one, one])
    assert len(calls) == 2 * len(jax.tree.leaves(weights))


def test_each_device_reads_its_own_part() -> None:
    scorer = Scorer(ModelSignature(TINY), make_mesh(parse("run=1,fsdp=2")), 1)
    calls: list[tuple[Names, Bounds]] = []
    weights: Any = random_weights(ModelSignature(TINY))[0]
    scorer.place_weights([counted(held(weights), calls)])
    rows = [bounds for names, bounds in calls if names == ("blocks", "attention", "q", "kernel")]
    assert rows == [((0, 2), (0, 16), (0, 32)), ((0, 2), (16, 32), (0, 32))]


def test_parts_of_folded_weights_are_those_of_the_whole() -> None:
    adapters, base = random_weights(ModelSignature(TINY, LORA))
    folded = fold(held(base), held(adapters), adapters, 1.5)
    names, dtype = ("blocks", "attention", "q", "kernel"), np.dtype(np.float32)
    beside = adapters["blocks"]["attention"]["q"]["adapter"]
    whole = base["blocks"]["attention"]["q"]["kernel"] + 1.5 * (beside["a"] @ beside["b"])
    part = folded(names, ((1, 2), (3, 9), (0, 5)), dtype)
    np.testing.assert_allclose(part, whole[1:2, 3:9, 0:5], rtol=1e-6)
    others = ("blocks", "attention", "k", "kernel")
    np.testing.assert_array_equal(
        folded(others, ((0, 1), (0, 4), (0, 4)), dtype),
        base["blocks"]["attention"]["k"]["kernel"][:1, :4, :4],
    )
