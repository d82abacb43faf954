"""What is measured does not depend on how rows are put together."""

from pathlib import Path

import pytest

from jaxorg.engine.measure import scoring
from sweeps import assert_same_rows, run

ORGANISMS = ("treatment=null", "reversal=null", "grid=[{organism.payload_repeats: [1, 2]}]")


def test_rows_do_not_depend_on_the_lengths_that_they_are_padded_to(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = run(tmp_path / "alike" / "out", tiny_base, *ORGANISMS)
    monkeypatch.setattr(scoring, "EVAL_PAD_MULTIPLE", 8)
    apart = run(tmp_path / "apart" / "out", tiny_base, *ORGANISMS)
    assert_same_rows(alike, apart, rtol=1e-4)
