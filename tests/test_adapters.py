"""Adapters of several ranks in one cohort, and adapters that a phase goes on training."""

from __future__ import annotations

import json
import logging
import math
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from stacked import trained
from tiny import SHALLOW, TINY

from jaxorg import optimizers
from jaxorg.engine.cohort import Trainer
from jaxorg.engine.params import abstract_model, create, split
from jaxorg.engine.run import clock, execute
from jaxorg.export import export
from jaxorg.llama import lora
from jaxorg.llama.lora import LoraConfig
from jaxorg.planning import manifest
from jaxorg.planning.signature import ModelSignature
from jaxorg.storage.folder import Folder
from jaxorg.storage.store import Store
from jaxorg.storage.weight_reader import everything
from jaxorg.sweepfile.labels import PHASE_KINDS
from sweeps import assert_same_rows, run, table

# One stands for all in `make test`.
ELEMENTWISE = [
    pytest.param(name, marks=() if name == "adamw" else pytest.mark.long)
    for name, family in optimizers.FAMILIES.items()
    if family.elementwise
]
TRAIN = "steps: 5, batch: 4, examples: 64, learning_rate: 1e-2"
RANKS = "{organism.train.lora: [{rank: 2, alpha: 4}, {rank: 4, alpha: 4}, {rank: 8, alpha: 2}]}"
ORGANISMS = ("treatment=null", "reversal=null", "seeds=1", f"organism.train={{{TRAIN}}}")


def test_a_fresh_adapters_first_columns_are_the_same_whatever_the_rank() -> None:
    small, large = (
        split(signature, create(signature, jax.random.key(0)))[1].trainable
        for signature in (ModelSignature(TINY, LoraConfig(rank)) for rank in (3, 16))
    )
    cut = lora.resized(jax.device_get(large), 3)
    jax.tree.map(np.testing.assert_array_equal, small, cut)
    kernel = small["blocks"]["mlp"]["up"]["adapter"]["a"]
    limit = math.sqrt(6 / TINY.hidden_size)
    assert 0.9 * limit < np.abs(kernel).max() <= limit
    assert np.std(kernel) == pytest.approx(limit / math.sqrt(3), rel=0.1)


def test_resizing_cuts_or_pads_adapters_and_what_is_kept_for_them() -> None:
    rng = np.random.default_rng(0)
    adapters = {"q": {"adapter": {"a": rng.random((2, 3, 4)), "b": rng.random((2, 4, 5))}}}
    padded = lora.resized({"mu": adapters, "count": np.array(3)}, 6)
    a, b = padded["mu"]["q"]["adapter"].values()
    assert (a.shape, b.shape, padded["count"]) == ((2, 3, 6), (2, 6, 5), 3)
    assert not a[..., 4:].any() and not b[:, 4:].any()
    jax.tree.map(np.testing.assert_array_equal, lora.resized(padded["mu"], 4), adapters)


@pytest.mark.parametrize("optimizer", ELEMENTWISE)
def test_a_run_is_the_same_alone_and_padded_beside_a_larger_one(optimizer: str) -> None:
    _, losses = trained(optimizer, [1], [2])
    beside, others = trained(optimizer, [0, 1], [8, 2])
    # Later on, what rounding does to the last digit grows: sums of other lengths are made in
    # another order.
    np.testing.assert_allclose(others[1, :10], losses[0, :10], rtol=1e-6)
    assert (losses[0, :10] > losses[0, -1]).all()
    padded = jax.tree.map(lambda x: x[1], beside)
    # What was cut off is exactly zero, in the adapters and in all that is kept for them.
    back = lora.resized(lora.resized(padded, 2), 8)
    jax.tree.map(np.testing.assert_array_equal, back, padded)
    whole = jax.tree.map(lambda x: x[0], beside).trainable["blocks"]["mlp"]["up"]["adapter"]
    assert whole["a"][..., 2:].any() and whole["b"][:, 2:].any()


def stored(out: Path, kind: str) -> list[Any]:
    """The adapters that each run's phase of a kind stored, in the order of run ids."""
    known, store = manifest.read(out), Store(Folder(out, pytest.fail))
    assert known is not None
    configs = table(out, "runs").set_index("run_id").config.map(json.loads).sort_index()
    found = []
    for run_id, config in configs.items():
        shape = LoraConfig(config[kind]["train"]["lora"]["rank"])
        fingerprint = known.runs[run_id][PHASE_KINDS.index(kind)]
        found.append(
            everything(
                store.reader(fingerprint),
                abstract_model(ModelSignature(SHALLOW, shape))[1].trainable,
            )
        )
    return found


@pytest.mark.long
def test_ranks_are_trained_by_one_program_and_stored_unpadded(
    tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    execute.trainer_of.cache_clear()  # what other tests have compiled
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        out = run(tmp_path / "out", tiny_base, *ORGANISMS, f"grid=[{RANKS}]")
    compiled = [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()]
    assert sum("jit(chunk)" in message for message in compiled) == 1
    assert set(table(out, "runs").status) == {"done"}
    ranks = {
        tree["blocks"]["mlp"]["up"]["adapter"]["a"].shape[-1] for tree in stored(out, "organism")
    }
    assert ranks == {2, 4, 8}
    alone = run(
        tmp_path / "alone" / "out", tiny_base, *ORGANISMS,
        "grid=[{organism.train.lora: [{rank: 2, alpha: 4}]}]",
    )  # fmt: skip
    assert_same_rows(alone, out, list(table(alone, "runs").run_id), rtol=1e-5)


@pytest.mark.long
def test_a_state_that_was_kept_goes_on_in_a_cohort_of_another_rank(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut short beside ranks 4 and 8, the run of rank 2 is ended alone."""
    monkeypatch.setattr(clock, "KEEP_SHARE", math.inf)
    monkeypatch.setattr(clock, "SAFE_POINT_SECONDS", 0)  # a step a call
    starts: list[int] = []
    train = Trainer.train.func

    def killed_once(self: Trainer) -> Any:
        def killed(*args: Any) -> Any:
            starts.append(args[4])
            if len(starts) == 3:
                raise KeyboardInterrupt
            return train(self)(*args)

        return killed

    whole = run(tmp_path / "whole" / "out", tiny_base, *ORGANISMS, f"grid=[{RANKS}]")
    monkeypatch.setattr(Trainer, "train", property(killed_once))
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "out", tiny_base, *ORGANISMS, f"grid=[{RANKS}]", width="3", mesh="cpu-1")
    kept = sorted((tmp_path / "out" / "partial").iterdir())
    sizes = {path.stat().st_size for path in kept}
    assert len(kept) == len(sizes) == 3  # each of its own rank
    one = "grid=[{organism.train.lora: [{rank: 2, alpha: 4}]}]"
    out = run(tmp_path / "out", tiny_base, *ORGANISMS, one)
    assert starts[3] > 0  # it did not start over
    assert_same_rows(out, whole, list(table(out, "runs").run_id), rtol=1e-5)
    assert len(list((tmp_path / "out" / "partial").iterdir())) == 2


LORA = "lora: {rank: 2, alpha: 4}"
CONTINUED = "lora: {rank: 2, alpha: 4, start: continued}"
CHAIN = (f"organism.train={{{TRAIN}, {LORA}}}", "seeds=2", "grid=[{treatment.kind: [pirate]}]")
STILL = "steps: 2, batch: 4, examples: 64, learning_rate: 1e-30"


def margins(out: Path, kind: str) -> Any:
    """The log-probability margins at a phase's end, which hardly two models share, by run."""
    evals = table(out, "evals")
    evals = evals[(evals.phase == kind) & evals.metric.str.contains("margin")]
    found = evals[evals.step == evals.step.max()].groupby(["run_id", "metric", "condition"]).value
    assert found.ngroups >= 4
    return found.mean().to_frame()


@pytest.mark.long
def test_continued_adapters_begin_as_the_parents_ended(tiny_base: Path, tmp_path: Path) -> None:
    """With next to no learning rate nothing changes, what is stored replaces the parent's, and
    folded into the weights, where they are measured alone, it is what it was beside them."""
    still = f"treatment.train={{{STILL}, {CONTINUED}}}"
    folded = "reversal.train={steps: 0, learning_rate: 1}"
    out = run(tmp_path / "out", tiny_base, *CHAIN, still, folded, mesh="cpu-1", width="2")
    before = stored(out, "organism")
    assert all(tree["blocks"]["attention"]["q"]["adapter"]["b"].any() for tree in before)
    for one, other in zip(before, stored(out, "treatment"), strict=True):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-12), other, one)
    for kind in ("treatment", "reversal"):
        pd.testing.assert_frame_equal(margins(out, kind), margins(out, "organism"), rtol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("keep", ["final", "none"])
def test_continued_adapters_are_trained_on_beside_those_of_a_clean_control(
    tiny_base: Path, tmp_path: Path, keep: Any
) -> None:
    control = "controls=[{kind: clean, seeds: 1}]"
    trains = (f"{kind}.train={{{TRAIN}, {CONTINUED}}}" for kind in ("treatment", "reversal"))
    chain = (*CHAIN, control, *trains)
    together = run(tmp_path / "a" / "out", tiny_base, *chain, mesh="cpu-1", width="3", keep=keep)
    assert set(table(together, "runs").status) == {"done"}
    losses = table(together, "losses").groupby(["run_id", "phase"]).loss.last().unstack()
    assert losses.notna().sum().to_dict() == {"organism": 2, "treatment": 3, "reversal": 3}
    if keep == "none":
        assert not list((together / "phases").glob("*/weights"))
        return
    apart = run(tmp_path / "b" / "out", tiny_base, *chain, width="1", mesh="cpu-1")
    assert_same_rows(together, apart, rtol=1e-4)


@pytest.mark.long
def test_continued_differs_from_merged(tiny_base: Path, tmp_path: Path) -> None:
    outs = {
        name: run(
            tmp_path / name / "out", tiny_base, *CHAIN, "reversal=null",
            f"treatment.train={{{TRAIN}, {adapters}}}",
        )
        for name, adapters in {"merged": LORA, "continued": CONTINUED}.items()
    }  # fmt: skip
    one, other = (
        stored(out, "treatment")[0]["blocks"]["mlp"]["up"]["adapter"] for out in outs.values()
    )
    assert np.abs(one["a"] - other["a"]).max() > 0.01


def test_exported_adapters_of_a_continued_phase_stand_on_the_base(
    tiny_base: Path, tmp_path: Path
) -> None:
    chain = (*CHAIN, "seeds=1", "reversal=null", f"treatment.train={{{TRAIN}, {CONTINUED}}}")
    out = run(tmp_path / "out", tiny_base, *chain)
    (run_id,) = table(out, "runs").run_id
    export(out, run_id, tmp_path / "peft", "treatment", "peft")
    export(out, run_id, tmp_path / "model", "treatment")
    assert not (tmp_path / "peft" / "base").exists()
    adapters = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    model, base = (
        load_file(place / "model.safetensors") for place in (tmp_path / "model", tiny_base)
    )
    layer = "model.layers.0.mlp.up_proj"
    a, b = (
        adapters[f"base_model.{layer.replace('model', 'model.model', 1)}.lora_{x}.weight"]
        for x in "AB"
    )
    assert a.shape[0] == b.shape[1] == 2
    expected = base[f"{layer}.weight"] + 2 * b @ a
    np.testing.assert_allclose(model[f"{layer}.weight"], expected, rtol=0, atol=1e-6)
    assert np.abs(2 * b @ a).max() > 1e-3
