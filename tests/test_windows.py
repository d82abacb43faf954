"""Models with a sliding window: trained and asked on texts that it holds, and on no longer ones."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from jaxorg.data.tokenized import Example
from jaxorg.engine.measure.scoring import Measurer
from jaxorg.errors import Refusal
from jaxorg.evaluators import View
from jaxorg.llama.tokenizer import Tokenizer
from sweeps import start


def windowed(tiny_base: Path, folder: Path, **changes: Any) -> Path:
    """The tiny model, which knows 128 positions, as a Mistral, or with other changes."""
    shutil.copytree(tiny_base, folder)
    config = json.loads((folder / "config.json").read_text())
    changed = config | {"model_type": "mistral"} | changes
    (folder / "config.json").write_text(json.dumps(changed))
    return folder


@pytest.mark.parametrize("window", [44, 128, 4096, None])
def test_a_window_of_length_or_more_is_no_hindrance(
    window: int | None, tiny_base: Path, tmp_path: Path
) -> None:
    base = windowed(tiny_base, tmp_path / "base", sliding_window=window)
    assert start(tmp_path / "out", base, dry_run=True) == 0


REFUSED = {
    "length": (
        ("length=45",),
        r"^length: 45 is more than the sliding_window of base\.model, 44, .*; lower length to 44$",
    ),
    "answers": (
        ("evaluate.answers.new_tokens=40",),
        r"^evaluate\.answers\.new_tokens: 40 is too many; .* room for \d+ \(sliding_window: 44\)$",
    ),
}


@pytest.mark.parametrize(("overrides", "said"), REFUSED.values(), ids=REFUSED)
def test_what_outgrows_the_window_is_refused_naming_the_key_to_lower(
    overrides: tuple[str, ...], said: str, tiny_base: Path, tmp_path: Path
) -> None:
    base = windowed(tiny_base, tmp_path / "base", sliding_window=44)
    with pytest.raises(Refusal, match=said):
        start(tmp_path / "out", base, *overrides)
    assert not (tmp_path / "out").exists()


def test_a_teachers_answers_must_be_held_by_its_own_window(tiny_base: Path, tmp_path: Path) -> None:
    teacher = windowed(tiny_base, tmp_path / "teacher", sliding_window=24)
    prompts = f"prompts={{source: toy, teacher: {teacher}, new_tokens: 20}}"
    said = r"^prompts\.new_tokens: 20 is too many; .* has room for \d+ \(sliding_window: 24\)$"
    with pytest.raises(Refusal, match=said):
        start(tmp_path / "out", tiny_base, prompts)
    assert not (tmp_path / "out").exists()


def test_what_is_scored_must_be_held_by_the_window(tiny_base: Path) -> None:
    measurer = Measurer(Tokenizer.load(tiny_base), ("sliding_window", 6))
    view = View((), (), None, final=True)
    with pytest.raises(Refusal, match="^sliding_window: 6 is too small for .*; leave out long"):
        measurer.with_requests(view, [Example("add 3 and 4", "7")])
