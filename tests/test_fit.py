"""Whether a sweep fits a slice: the choice of axes and width, and the TPU's own compiler."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args
from unittest.mock import Mock

import jax
import pytest
from tiny import TINY

from jaxorg.cli import fit as command
from jaxorg.engine.cohort import CHUNK_STEPS, Scorer
from jaxorg.engine.measure.calls import rows_at_once
from jaxorg.engine.mesh import AXES, SLICES, make_mesh, parse
from jaxorg.engine.params import abstract_model
from jaxorg.engine.run import aot
from jaxorg.engine.run.aot import Compiled, Does, Program, compile_elsewhere
from jaxorg.errors import Refusal
from jaxorg.fit import fit
from jaxorg.llama.checkpoint import read_config, resolve, resolve_shape
from jaxorg.llama.lora import LoraConfig
from jaxorg.llama.model import RopeScaling
from jaxorg.planning.plan import make_plan
from jaxorg.planning.signature import ModelSignature, Signature
from jaxorg.sweepfile.spec import load
from sweeps import write

GIGABYTE = 10**9


@pytest.fixture
def sweep(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The small sweep, on a machine that seems to have the TPU's compiler."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    return str(write(tmp_path / "out", tiny_base))


def taking(
    monkeypatch: pytest.MonkeyPatch,
    gigabytes: float,
    fixed: float = 0.0,
    measuring: float = 0.0,
) -> list[tuple[str, int, int]]:
    """Let training take so much memory a run, divided by the devices of the run, and some besides,
    and measuring so much a run. Returns what is compiled of the cohorts that are trained: what it
    does, devices a run and width."""
    tried = []

    def compiled(program: Program, _: str, axes: Mapping[str, int], width: int) -> Compiled:
        of_a_run = axes["fsdp"] * axes["tensor"]
        if program.signature:
            tried.append((program.does, of_a_run, width))
        size = gigabytes if program.does == "train" else measuring
        return Compiled(int((size * width / of_a_run + fixed) * GIGABYTE), 1.0, GIGABYTE)

    monkeypatch.setattr(command, "compile_elsewhere", compiled)
    return tried


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    """What `fit` says in JSON, and of the cohorts that are trained."""
    sweep, mesh, *sets = arguments
    assert fit(sweep, mesh, "laptop", list(sets), as_json=True) == code
    outcome = json.loads(capsys.readouterr().out)
    base, trained = outcome["cohorts"]
    assert base["cohorts"] == ["base"]
    assert base["width"] == 1
    return {**outcome, **trained}


def widths(tried: Sequence[tuple[str, int, int]], does: str = "train") -> list[int]:
    return [width for what, _, width in tried if what == does]


def test_the_widest_program_that_fits_is_chosen(
    sweep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = taking(monkeypatch, gigabytes=4)
    found = told(capsys, sweep, "v5e-4", "seeds=16")
    assert (found["width"], found["lanes"], found["fits"]) == (4, 16, True)  # of 16.9 GB a chip
    assert widths(tried) == [1, 4, 5]  # 5 shows that 4 is the most
    assert found["programs"]["train"]["memory"] == found["memory"] == 16 * GIGABYTE


def test_it_is_no_wider_than_there_are_runs(
    sweep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taking(monkeypatch, gigabytes=0.1)
    assert told(capsys, sweep, "v5e-4")["width"] == 2  # 8 treatments on 4 chips


@pytest.mark.parametrize(("each", "fixed"), [(1, 1.1), (1.5, -0.5), (1, 9), (3, -2), (2, 4)])
def test_a_wrong_guess_is_mended(
    sweep: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    each: float,
    fixed: float,
) -> None:
    tried = taking(monkeypatch, each, fixed)
    found = told(capsys, sweep, "v5e-1", "seeds=16")
    assert found["width"] == int((15.75 * 2**30 / GIGABYTE - fixed) / each)
    assert len(widths(tried)) == len(set(widths(tried))) <= 6


def test_a_sweep_that_trains_but_cannot_be_measured_does_not_fit(
    sweep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taking(monkeypatch, gigabytes=1, measuring=100)
    found = told(capsys, sweep, "v5e-4", code=1)
    assert found["fits"] is False
    assert found["memory"] == found["programs"]["score"]["memory"] == 25 * GIGABYTE  # on 4 chips
    taking(monkeypatch, gigabytes=1, measuring=6)
    assert told(capsys, sweep, "v5e-4", "seeds=16")["width"] == 2


def test_a_run_that_does_not_fit_is_spread_over_more_chips(
    sweep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = taking(monkeypatch, gigabytes=50)
    found = told(capsys, sweep, "v5e-16")
    assert found["axes"] == {"run": 4, "fsdp": 4, "tensor": 1}
    assert tried[:3] == [("train", 1, 1), ("train", 2, 1), ("train", 4, 1)]
    taking(monkeypatch, gigabytes=200)  # its 4 rows are split over no more than 4 chips
    assert told(capsys, sweep, "v5e-16")["axes"] == {"run": 1, "fsdp": 4, "tensor": 4}


def test_what_does_not_fit_says_by_how_much_and_what_is_large_enough(
    sweep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taking(monkeypatch, gigabytes=500)
    assert fit(sweep, "v5e-4", "laptop") == 1
    said = capsys.readouterr().out
    assert "DOES NOT FIT" in said
    assert "train: 125 GB of 17 GB HBM a chip, 108 GB too much; compiled in 1 s, 1 GB" in said
    assert "these should be large enough: v4-32, v5p-16, v5e-32, v6e-16" in said


def test_a_generation_stands_for_its_smallest_slice_that_holds_the_sweep(
    sweep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = taking(monkeypatch, gigabytes=200)
    found = told(capsys, sweep, "v5p")
    assert (found["mesh"], found["fits"]) == ("v5p-8", True)
    taking(monkeypatch, gigabytes=500)
    assert told(capsys, sweep, "v5p")["mesh"] == "v5p-16"
    assert told(capsys, sweep, "v5p,fsdp=2", code=1)["mesh"] == "v5p-512"
    taking(monkeypatch, gigabytes=1)
    assert told(capsys, sweep, "v5e,fsdp=2")["mesh"] == "v5e-4"  # one chip cannot be divided
    taking(monkeypatch, gigabytes=500)
    tried = taking(monkeypatch, gigabytes=500)
    monkeypatch.setattr("jaxorg.engine.run.estimate.memory", lambda _: 450 * GIGABYTE)
    assert told(capsys, sweep, "v5p")["mesh"] == "v5p-16"
    assert tried[0] == ("train", 8, 1)  # what cannot hold the run's state is not compiled


def test_axes_that_were_given_are_kept(
    sweep: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = taking(monkeypatch, gigabytes=50)
    found = told(capsys, sweep, "v5e-16,fsdp=2", code=1)
    assert (found["axes"], found["fits"]) == ({"run": 8, "fsdp": 2, "tensor": 1}, False)
    assert {of_a_run for _, of_a_run, _ in tried} == {2}


def test_a_config_without_weights_is_enough(
    sweep: str, tiny_base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    taking(monkeypatch, gigabytes=1)
    (tmp_path / "shape").mkdir()
    config = (tiny_base / "config.json").read_text()
    (tmp_path / "shape" / "config.json").write_text(config)
    assert fit(sweep, "v5e-1", "laptop", [f"base.model={tmp_path / 'shape'}"]) == 0


def test_the_shapes_of_gated_models_are_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    for name, parameters, tied in (
        ("Llama-3.2-1B", 1_235_814_400, True),
        ("Llama-3.1-8B", 8_030_261_248, False),
        ("Llama-3.3-70B", 70_553_706_496, False),
    ):
        config = read_config(resolve_shape(f"meta-llama/{name}-Instruct"))
        _, (weights, _) = abstract_model(ModelSignature(config))
        assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(weights)) == parameters
        assert config.tie_word_embeddings == tied
    with pytest.raises(Refusal, match="cannot be downloaded"):  # a sweep needs its weights
        resolve("meta-llama/Llama-3.2-1B-Instruct")
    with pytest.raises(Refusal, match="cannot be downloaded"):
        resolve_shape("meta-llama/Llama-3.2-1B-Instruct@main")


def test_a_sweep_of_shipped_size_llama_can_be_asked_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    taking(monkeypatch, gigabytes=80)
    assert fit("quickstart", "v4-64", as_json=True) == 0
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["axes"] == {"run": 8, "fsdp": 4, "tensor": 1}
    assert [each["cohorts"] for each in outcome["cohorts"]] == [
        ["base", "organism"],  # measured only: the clean control
        ["organism"],
        ["treatment", "reversal"],
    ]


def test_what_cannot_be_asked_is_refused(sweep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refusal, match="--mesh: 'cpu-8' is not a TPU slice; choose from v4-8, "):
        fit(sweep, "cpu-8", "laptop")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(Refusal, match=r"TPU compiler is missing; run pip install -e '\.\[tpu\]'"):
        fit(sweep, "v5e-1", "laptop")


def test_a_program_is_the_same_in_the_process_that_compiles_it() -> None:
    shape = replace(
        TINY,
        rope_scaling=RopeScaling(8.0, 1.0, 4.0, 64),
        sliding_window=64,
        sliding_layers=(1,),
    )
    model = ModelSignature(shape, LoraConfig(2, ("q",)))
    program = Program("train", model, Signature(model, 40, 4, "adamw", "constant"), 40, 8)
    assert aot._program(json.loads(json.dumps(asdict(program)))) == program


@pytest.mark.parametrize("lora", [None, LoraConfig(2)])
def test_programs_are_lowered_for_what_they_take(lora: LoraConfig | None) -> None:
    model = ModelSignature(TINY, lora)
    signature = Signature(model, 40, 4, "adamw", "constant")
    _, (trainable, _) = abstract_model(model)
    parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(trainable))
    mesh = make_mesh(parse("cpu-2"))
    programs = {does: Program(does, model, signature, 40, 8) for does in get_args(Does)}
    takes = {does: aot._lowered(program, mesh, 3) for does, program in programs.items()}
    shapes = {does: [x.shape for x in jax.tree.leaves(takes[does][0].in_avals)] for does in takes}
    assert (6, CHUNK_STEPS, 4, 40) in shapes["train"]  # 2 devices, 3 runs each
    assert (6, 51, 40) in shapes["prefill"]  # some 2,048 tokens
    assert (6, 51, 41) in shapes["score"]  # a prompt's last token, too
    assert (6, 64) in shapes["generate"]
    moments = 3 * (2 * 4 * parameters + 4)  # which lie there while a phase is measured
    assert [beside for _, beside in takes.values()] == [0, moments, moments, moments]


def test_rows_are_scored_as_many_at_a_time_as_have_room_for_their_logits() -> None:
    def rows(vocabulary: int, tokens: int, **axes: int) -> int:
        model = ModelSignature(replace(TINY, vocab_size=vocabulary))
        shape = {"run": 1, "fsdp": 1, "tensor": 1, **axes}
        scorer = Mock(spec=Scorer, model=model, mesh=SimpleNamespace(shape=shape))
        return rows_at_once(scorer, tokens, logits=tokens, slots=0)

    assert rows(768, 24) == rows(768, 24, fsdp=2) == rows(128_256, 32) == 64
    assert rows(768, 128) == 16
    assert rows(768, 128, fsdp=2) == 32
    assert rows(128_256, 512) == rows(128_256, 512, tensor=2) == 4
    assert rows(128_256, 512, fsdp=2) == 8
    assert rows(2**19, 512) == 1
    assert rows(2**19, 512, tensor=2) == 2
    assert rows(128_256, 2**17, fsdp=128) == 128


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed")
def test_the_tpus_compiler_says_what_programs_take(
    tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(write(tmp_path / "out", tiny_base))
    lora = "organism.train.lora={rank: 2, alpha: 4}"
    assert fit(file, "v5e-4,fsdp=2", "laptop", ["seeds=1", lora], as_json=True) == 0
    outcome = json.loads(capsys.readouterr().out)
    for each in outcome["cohorts"]:
        for compiled in each["programs"].values():
            assert compiled["problem"] == ""
            assert 100_000 < compiled["memory"] < 200_000_000
            assert compiled["host_memory"] > 100_000_000
    plan = make_plan(load(file, "laptop"), weights=False)
    signature = next(cohort.signature for cohort in plan.cohorts if cohort.signature)
    program = Program("train", signature.model, signature, 44, 8)
    wrong = compile_elsewhere(program, "v5e-4", {"run": 3, "fsdp": 2, "tensor": 1}, 1)
    assert "cannot reshape" in wrong.problem
    huge = replace(signature, batch=2**20)
    wide = compile_elsewhere(replace(program, signature=huge), "v5e-1", dict.fromkeys(AXES, 1), 1)
    assert "RESOURCE_EXHAUSTED" in wide.problem
    assert wide.memory > SLICES["v5e-1"].memory
