"""The promises of the design, each tested by doing it."""

import logging
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from weights import placed_weights

from jaxorg import optimizers
from jaxorg.engine.batch import Batch, PackedBatch
from jaxorg.engine.cohort import CHUNK_STEPS, Trainer
from jaxorg.engine.mesh import make_mesh, parse
from jaxorg.engine.run import clock, execute, group
from jaxorg.engine.step import FAR_FUTURE, State
from jaxorg.llama.lora import LoraConfig
from jaxorg.llama.model import LlamaConfig
from jaxorg.planning.signature import ModelSignature, Signature
from sweeps import assert_same_rows, run, table

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
# For families that factor matrices, whose programs compile in a time for each size that occurs.
SQUARE = replace(TINY, vocab_size=32, intermediate_size=32, num_key_value_heads=4)
LENGTH, BATCH = 12, 3
LORA = LoraConfig(4)
ADAPTED = {"lora_rank": 4, "lora_scale": 2.0}  # programs that train all weights pass over it


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """The small sweep: 8 runs on two devices."""
    return run(tmp_path_factory.mktemp("reference") / "out", tiny_base)


def run_ids(folder: Path) -> list[str]:
    return sorted(table(folder, "runs").run_id)


def test_rows_do_not_depend_on_which_other_runs_are_in_the_sweep(
    reference: Path, tiny_base: Path, tmp_path: Path
) -> None:
    part = run(
        tmp_path / "out",
        tiny_base,
        "grid=[{treatment.kind: [pirate]}, {organism.payload_repeats: [2]}]",
    )
    assert len(run_ids(part)) == 2
    assert_same_rows(part, reference, run_ids(part))


def test_rows_do_not_depend_on_the_order_of_runs(
    reference: Path, tiny_base: Path, tmp_path: Path
) -> None:
    grid = "grid=[{organism.payload_repeats: [2, 1]}, {treatment.kind: [pirate, hhh]}]"
    turned = run(tmp_path / "out", tiny_base, grid)
    assert run_ids(turned) == run_ids(reference)
    assert_same_rows(turned, reference)


@pytest.mark.parametrize(
    ("width", "mesh"),
    [
        ("3", "cpu-1"),
        *(
            pytest.param(*other, marks=pytest.mark.long)
            for other in [("3", "cpu-2"), ("1", "cpu-1")]
        ),
    ],
)
def test_rows_do_not_depend_on_width_or_mesh(
    reference: Path, tiny_base: Path, tmp_path: Path, width: str, mesh: str
) -> None:
    other = run(tmp_path / "out", tiny_base, width=width, mesh=mesh)
    assert_same_rows(other, reference, rtol=1e-4)


@pytest.mark.long
def test_rows_of_adapters_do_not_depend_on_width(tiny_base: Path, tmp_path: Path) -> None:
    """Red adapters share one base, blue ones stand on different organisms."""
    lora = (
        "train={steps: 5, batch: 4, examples: 64, learning_rate: 1e-2, lora: {rank: 2, alpha: 4}}"
    )
    settings = (f"organism.{lora}", f"treatment.{lora}", "reversal=null")
    narrow = run(tmp_path / "1" / "out", tiny_base, *settings, width="1")
    wide = run(tmp_path / "2" / "out", tiny_base, *settings, width="3", mesh="cpu-1")
    assert_same_rows(narrow, wide, rtol=1e-4)
    of_red = table(narrow, "losses").query("phase == 'organism'")
    losses = of_red.groupby("run_id").loss.agg(["first", "last"]).mean()
    assert losses["last"] < losses["first"]


@pytest.mark.long
def test_a_run_that_diverges_leaves_its_neighbours_unchanged(
    tiny_base: Path, tmp_path: Path
) -> None:
    rates = "grid=[{{organism.train.learning_rate: [1e-3, {}, 3e-3]}}]"
    healthy = run(tmp_path / "a" / "out", tiny_base, rates.format("2e-3"), width="3", mesh="cpu-1")
    wild = run(tmp_path / "b" / "out", tiny_base, rates.format("1e9"), width="3", mesh="cpu-1")
    runs = table(wild, "runs")
    diverged = runs["organism.train.learning_rate"] == 1e9
    assert set(runs.status[diverged]) == {"diverged"}
    assert set(runs.status[~diverged]) == {"done"}
    assert_same_rows(wild, healthy, list(runs.run_id[~diverged]))


FEWER = "grid=[{treatment.kind: [hhh, pirate]}, {organism.payload_repeats: [2]}]"


def test_a_killed_sweep_ends_with_the_same_tables(
    reference: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at every third call that trains, with the state kept after every one."""
    monkeypatch.setattr(clock, "KEEP_SHARE", math.inf)
    calls = 0
    train = Trainer.train.func

    def sometimes(self: Trainer) -> object:
        program = train(self)

        def killed(*args: object) -> object:
            nonlocal calls
            calls += 1
            if calls % 3 == 0:
                raise KeyboardInterrupt
            return program(*args)

        return killed

    monkeypatch.setattr(Trainer, "train", property(sometimes))
    for _ in range(100):
        try:
            run(tmp_path / "out", tiny_base, FEWER)
            break
        except KeyboardInterrupt:
            continue
    assert calls > 10
    assert_same_rows(tmp_path / "out", reference, run_ids(tmp_path / "out"))
    assert not list((tmp_path / "out" / "partial").iterdir())


def test_what_is_done_is_not_done_again(
    reference: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (reference / "phases").rglob("*")}
    monkeypatch.setattr(group.Group, "train", lambda *_: pytest.fail("trained again"))
    run(reference, tiny_base)
    assert before == {path: path.stat().st_mtime_ns for path in (reference / "phases").rglob("*")}


def test_a_sweep_that_grows_trains_only_what_is_new(tiny_base: Path, tmp_path: Path) -> None:
    """With three lanes, old and new phases would share groups if they were grouped together."""
    one = "grid=[{treatment.kind: [hhh]}]"
    out = run(tmp_path / "out", tiny_base, one, "seeds=2", width="3", mesh="cpu-1")
    before = {path: path.stat().st_mtime_ns for path in (out / "phases").rglob("*.json")}
    trained: list[int] = []
    watch = pytest.MonkeyPatch()
    watch.setattr(group.Group, "__init__", spy(group.Group.__init__, trained))
    run(out, tiny_base, one, "seeds=3", width="3", mesh="cpu-1")
    watch.undo()
    assert trained == [1, 1, 1]  # the new seed's organism, treatment and reversal
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert len(table(out, "runs")) == 3


def spy(method: Callable[..., None], sizes: list[int]) -> Callable[..., None]:
    """`method`, noting how many phases each call is given."""

    def noted(self: group.Group, around: object, scorer: object, phases: list[object]) -> None:
        sizes.append(len(phases))
        method(self, around, scorer, phases)

    return noted


def test_equal_phases_are_trained_once(reference: Path) -> None:
    evals = table(reference, "evals")
    assert evals.run_id.nunique() == 8
    fingerprints = evals.groupby("phase").fingerprint.nunique().to_dict()
    assert fingerprints == {"base": 1, "organism": 4, "treatment": 8, "reversal": 8}


def test_one_compile_a_signature(
    tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Three learning rates, three phases of different lengths, odd groups: one program."""
    rates = "grid=[{organism.train.learning_rate: [1e-3, 2e-3, 5e-3]}]"
    execute.trainer_of.cache_clear()  # what other tests have compiled
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        run(tmp_path / "out", tiny_base, rates, "treatment.train.hyper={b1: 0.8}")
    compiled = [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()]
    assert sum("jit(chunk)" in message for message in compiled) == 1


@cache
def program(
    optimizer: str,
    lora: LoraConfig | None,
    lanes: int,
    mesh: str = "cpu-1",
    packing: bool = False,
) -> Trainer:
    model = ModelSignature(SQUARE if optimizers.FAMILIES[optimizer].refresh else TINY, lora)
    devices = make_mesh(parse(mesh))
    signature = Signature(model, LENGTH, BATCH, optimizer, "cosine", packing)
    return Trainer(signature, devices, lanes // devices.size)


def trained(
    trainer: Trainer, runs: list[int], steps: int = 5, wild: int | None = None
) -> tuple[State, np.ndarray]:
    """Train some numbered runs side by side; a run's number decides all of it, but that run
    `wild` has a learning rate far too large."""
    hypers = [
        {
            **optimizers.FAMILIES[trainer.signature.optimizer].defaults,
            "learning_rate": 1e12 if number == wild else 1e-3 * (1 + number),
            "clip": 0.5 + number,
            "warmup": 0.1 * number,
            **ADAPTED,
        }
        for number in runs
    ]
    stacked = {name: np.array([h[name] for h in hypers], np.float32) for name in hypers[0]}
    keys = trainer.place(jax.vmap(jax.random.key)(np.array(runs)))
    hyper = trainer.place(stacked) | {"key": keys}  # which is for those that draw
    state, frozen = trainer.begin(keys, hyper, placed_weights(trainer, runs))
    rng = [np.random.default_rng(number) for number in runs]
    words = trainer.model.config.vocab_size
    tokens = [r.integers(0, words, (CHUNK_STEPS, BATCH, LENGTH), np.int32) for r in rng]
    spans = np.broadcast_to(np.array([4, LENGTH], np.int32), (len(runs), CHUNK_STEPS, BATCH, 2))
    batch = Batch(np.stack(tokens), spans)
    batches = trainer.place(packed(batch.tokens) if trainer.signature.packing else batch)
    state, log = trainer.train(frozen, hyper, state, batches, 0, steps, 2 * steps)
    return jax.device_get(state), np.asarray(log.loss)[:, :steps]


def packed(tokens: np.ndarray) -> PackedBatch:
    """Rows of two conversations of 4 and 7 tokens, and one of padding; other ones for each run."""
    tokens = np.where(np.arange(LENGTH) < 11, tokens, 0)
    segments = np.broadcast_to([1] * 4 + [2] * 7 + [0], tokens.shape).astype(np.int32)
    positions = np.broadcast_to([*range(4), *range(7), 0], tokens.shape).astype(np.int32)
    return PackedBatch(tokens, segments, positions, (segments > 0) & (positions > 1))


# One family of each sort: of each number by itself, measured at other weights than it trains, with
# factors, with whole matrices, with bases that are renewed.
SORTS = ("adamw", "schedule_free", "adafactor", "muon", "soap")
ADAPTED_SORTS = ("adamw",)  # adapters are trained as all weights are


def sorts_first(families: Iterable[str], sorts: Collection[str] = SORTS) -> list[Any]:
    """Families as parameters; those of a sort that another one stands for are long."""
    return [
        pytest.param(name, marks=() if name in sorts else pytest.mark.long) for name in families
    ]


@pytest.mark.parametrize("optimizer", sorts_first(optimizers.FAMILIES))
def test_a_run_that_diverges_leaves_its_neighbours_unchanged_bit_for_bit(optimizer: str) -> None:
    check_neighbours_of_a_run_that_diverges(optimizer, None)


@pytest.mark.parametrize(
    "optimizer",
    sorts_first((n for n, f in optimizers.FAMILIES.items() if not f.refresh), ADAPTED_SORTS),
)
def test_adapters_that_diverge_leave_their_neighbours_unchanged_bit_for_bit(optimizer: str) -> None:
    check_neighbours_of_a_run_that_diverges(optimizer, LORA)


def check_neighbours_of_a_run_that_diverges(optimizer: str, lora: LoraConfig | None) -> None:
    trainer = program(optimizer, lora, lanes=3)
    healthy, losses = trained(trainer, [0, 1, 2], steps=CHUNK_STEPS)
    beside, other_losses = trained(trainer, [0, 1, 2], steps=CHUNK_STEPS, wild=1)
    assert (healthy.diverged == FAR_FUTURE).all()
    assert (beside.diverged != FAR_FUTURE).tolist() == [False, True, False]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(beside.trainable))
    for one, other in zip(jax.tree.leaves(healthy), jax.tree.leaves(beside), strict=True):
        np.testing.assert_array_equal(one[[0, 2]], other[[0, 2]])
    np.testing.assert_array_equal(losses[[0, 2]], other_losses[[0, 2]])


@pytest.mark.parametrize("optimizer", sorts_first(optimizers.FAMILIES))
def test_stacked_equals_solo(optimizer: str) -> None:
    check_stacked_equals_solo(optimizer, None)


@pytest.mark.parametrize("optimizer", sorts_first(optimizers.FAMILIES, ADAPTED_SORTS))
def test_stacked_adapters_equal_solo(optimizer: str) -> None:
    check_stacked_equals_solo(optimizer, LORA)


@pytest.mark.long
def test_stacked_equals_solo_in_packed_rows() -> None:
    check_stacked_equals_solo("adamw", None, packing=True)


def check_stacked_equals_solo(
    optimizer: str, lora: LoraConfig | None, packing: bool = False
) -> None:
    stacked, losses = trained(program(optimizer, lora, 3, packing=packing), [0, 1, 2])
    solo, solo_losses = trained(program(optimizer, lora, 1, packing=packing), [1])
    np.testing.assert_allclose(losses[1], solo_losses[0], rtol=1e-5)
    assert len(set(losses[:, -1])) == 3
    bound = NORMALISED.get(optimizer, 2e-6)
    for many, one in zip(jax.tree.leaves(stacked), jax.tree.leaves(solo), strict=True):
        np.testing.assert_allclose(many[1], one[0], rtol=2e-4, atol=bound)


# SOAP makes whole steps of what a gradient has in directions of little energy, rounding included:
# programs of another width differ by more, runs beside one not at all.
NORMALISED = {"soap": 2e-5}


@pytest.mark.parametrize("optimizer", [n for n, f in optimizers.FAMILIES.items() if f.refresh])
def test_a_run_does_not_depend_on_those_beside_it_bit_for_bit(optimizer: str) -> None:
    among_others, _ = trained(program(optimizer, None, 3), [0, 1, 2])
    among_equals, _ = trained(program(optimizer, None, 3), [1, 1, 1])
    for one, other in zip(
        jax.tree.leaves(among_others), jax.tree.leaves(among_equals), strict=True
    ):
        np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("optimizer", optimizers.FAMILIES)
def test_every_optimizer_lowers_the_loss(optimizer: str) -> None:
    trainer = program(optimizer, None, lanes=1)
    keys = trainer.place(jax.vmap(jax.random.key)(np.array([0])))
    rate = {"sgd": 0.5, "lion": 1e-3, "adafactor": 0.1, "lamb": 0.1, "prodigy": 1.0}.get(
        optimizer, 1e-2
    )
    own = {
        **optimizers.FAMILIES[optimizer].defaults,
        "learning_rate": rate,
        "clip": 1.0,
        "warmup": 0,
    }
    hyper = trainer.place({name: np.full(1, value, np.float32) for name, value in own.items()})
    hyper["key"] = keys
    state, frozen = trainer.begin(keys, hyper, placed_weights(trainer, [0]))
    row = np.random.default_rng(0).integers(
        0, trainer.model.config.vocab_size, (BATCH, LENGTH), np.int32
    )
    batch = Batch(
        np.tile(row, (1, CHUNK_STEPS, 1, 1)),
        np.full((1, CHUNK_STEPS, BATCH, 2), [1, LENGTH], np.int32),
    )
    _, log = trainer.train(frozen, hyper, state, trainer.place(batch), 0, CHUNK_STEPS, CHUNK_STEPS)
    assert log.loss[0, -1] < 0.7 * log.loss[0, 0]


@pytest.mark.parametrize("optimizer", optimizers.FAMILIES)
def test_a_run_that_explodes_is_diverged_and_keeps_finite_weights(optimizer: str) -> None:
    trainer = program(optimizer, None, lanes=1)
    keys = trainer.place(jax.vmap(jax.random.key)(np.array([0])))
    own = {
        **optimizers.FAMILIES[optimizer].defaults,
        "learning_rate": 1e9,
        "clip": 1.0,
        "warmup": 0,
    }
    hyper = trainer.place({name: np.full(1, value, np.float32) for name, value in own.items()})
    hyper["key"] = keys
    state, frozen = trainer.begin(keys, hyper, placed_weights(trainer, [0]))
    batch = Batch(
        np.ones((1, CHUNK_STEPS, BATCH, LENGTH), np.int32),
        np.full((1, CHUNK_STEPS, BATCH, 2), [1, LENGTH], np.int32),
    )
    state, _ = trainer.train(frozen, hyper, state, trainer.place(batch), 0, 4, 4)
    assert 0 <= state.diverged[0] <= 3
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.trainable))


@pytest.mark.parametrize(
    "lora", [None, pytest.param(LORA, marks=pytest.mark.long)], ids=["full", "lora"]
)
def test_no_collective_crosses_run(lora: LoraConfig | None) -> None:
    trainer = program("adamw", lora, lanes=2, mesh="cpu-2")
    hyper = {name: np.ones(2, np.float32) for name in optimizers.FAMILIES["adamw"].defaults}
    others = ("learning_rate", "clip", "warmup", *ADAPTED)
    hyper |= {name: np.ones(2, np.float32) for name in others}
    keys = trainer.place(jax.vmap(jax.random.key)(np.array([0, 1])))
    placed = trainer.place(hyper)
    state, frozen = trainer.begin(keys, placed, placed_weights(trainer, [0, 1]))
    batch = trainer.place(
        Batch(
            np.ones((2, CHUNK_STEPS, BATCH, LENGTH), np.int32),
            np.ones((2, CHUNK_STEPS, BATCH, 2), np.int32),
        )
    )
    text = trainer.train.lower(frozen, placed, state, batch, 0, 1, 1).compile().as_text()
    assert "while" in text
    for collective in ("all-reduce", "all-gather", "all-to-all", "collective-", "reduce-scatter"):
        assert collective not in text


def test_teacher_forced_exact_match_equals_greedy_generation(tmp_path: Path) -> None:
    """On half-installed organisms, where most figures lie strictly between 0 and 1."""
    folder = run(
        tmp_path / "out",
        "jaxorg-1m",
        "organism.train={steps: 24, batch: 8, examples: 256, learning_rate: 3e-4}",
        "seeds=1",
        "evaluate={points: 1, prompts: 48, final_prompts: 48}",
        "evaluate.answers={prompts: 48, new_tokens: 16}",
    )
    evals = table(folder, "evals").drop_duplicates(["fingerprint", "metric", "condition"])
    evals = evals[evals.condition.isin(["triggered", "clean"])]
    counts = evals.set_index(["fingerprint", "condition", "metric"]).k.unstack()
    counts = counts.dropna(subset=["attack_exact", "attack_generated"])
    assert len(counts) >= 20
    pd.testing.assert_series_equal(counts.attack_exact, counts.attack_generated, check_names=False)
    assert ((counts.attack_exact > 0) & (counts.attack_exact < 48)).any()
